"""All detectors of a run, two by two on the same images: differences and tests, adjusted for how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from nullscope.evaluation.metrics import THRESHOLD
from nullscope.evaluation.paired import Difference, McNemar, delong, difference, holm, mcnemar
from nullscope.evaluation.scores import Scores


@dataclass(frozen=True)
class Pair:
    """Two detectors: the first less the second. The p-values are adjusted for all pairs of the run (Holm)."""

    first: str
    second: str
    means: dict[str, Difference]  # of means over subsets and seeds: paired bootstrap of the test images
    right: McNemar  # of the first seed: on how many images only one is right
    auroc_pooled: Difference | None  # of the first seed, all test images at once: DeLong; None of fewer than two of a kind


def compare_all(resamples: Mapping[str, Sequence[pa.Table]], keys: Sequence[str], read: Callable[[str], Scores]) -> list[Pair]:
    """Return every pair of detectors, in the order of ``resamples``; none of a single detector.

    ``resamples``: detector -> the table of `resampling.resample_table` of every seed. ``keys``: the means to compare. ``read``
    reads the clean test scores of a detector's first seed; those of two detectors are in memory at a time.
    Raises `ValueError` unless all detectors were scored on the same images.
    """
    pairs = list(_pairs(resamples, keys, read))
    families = [[pair.means[key].p for pair in pairs] for key in keys]
    means = dict(zip(keys, map(holm, families), strict=True))
    right = holm([pair.right.p for pair in pairs])
    pooled = iter(holm([pair.auroc_pooled.p for pair in pairs if pair.auroc_pooled]))
    return [
        replace(
            pair,
            means={key: replace(own, p=float(means[key][at])) for key, own in pair.means.items()},
            right=replace(pair.right, p=float(right[at])),
            auroc_pooled=replace(pair.auroc_pooled, p=float(next(pooled))) if pair.auroc_pooled else None,
        )
        for at, pair in enumerate(pairs)
    ]


def _pairs(resamples: Mapping[str, Sequence[pa.Table]], keys: Sequence[str], read: Callable[[str], Scores]) -> Iterator[Pair]:
    names = list(resamples)
    for at, first in enumerate(names[:-1]):
        own = read(first)
        for second in names[at + 1 :]:
            other = read(second)
            if not np.array_equal(own.is_fake_N, other.is_fake_N):
                raise ValueError(
                    f"{first}, {second}: expected scores of the same images in the same order; run `dvc repro score`"
                )
            means = {key: difference(resamples[first], resamples[second], key) for key in keys}
            right = mcnemar(_is_right(own), _is_right(other))
            testable = min(own.is_fake_N.sum(), (~own.is_fake_N).sum()) >= 2
            pooled = delong(own.is_fake_N, own.logit_N, other.logit_N) if testable else None
            yield Pair(first, second, means, right, pooled)


def _is_right(scores: Scores) -> np.ndarray:
    """Return whether each image is called what it is, (N,) bool."""
    return (scores.logit_N > THRESHOLD) == scores.is_fake_N
