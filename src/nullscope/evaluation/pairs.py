"""All detectors of a run, two by two on the same images: differences, tests, and on how many generators one is ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pyarrow as pa

from nullscope.evaluation.intervals import ALPHA
from nullscope.evaluation.metrics import THRESHOLD
from nullscope.evaluation.paired import Difference, McNemar, Tables, compare, delong, holm, mcnemar
from nullscope.evaluation.scores import Scores

PER_GENERATOR = "auroc"  # the number by which one of two is ahead on a generator


@dataclass(frozen=True)
class Pair:
    """Two detectors: the first less the second. The p-values are adjusted for all pairs of the run."""

    first: str
    second: str
    means: dict[str, Difference]  # of means over subsets, seeds and images in one error (`paired.compare`)
    ahead: tuple[int, int]  # on how many generators the first has the higher AUROC, and of how many


@dataclass(frozen=True)
class Models:
    """Two fixed models on the same images: the first less the second. The p-values are adjusted after Holm for all of a run."""

    right: McNemar  # on how many images only one is right
    auroc_pooled: Difference | None  # all test images at once: DeLong; None of fewer than two of a kind


def compare_all(tables: Tables, keys: Sequence[str], *, fixed: frozenset[str]) -> list[Pair]:
    """Return every pair of detectors, in the order of ``tables``; none of a single detector.

    ``keys``: the means to compare; ``fixed`` as in `paired.compare`. Raises `ValueError` unless all were scored on the same
    images.
    """
    pairs = list(combinations(tables, 2))
    means = {key: compare(tables, [(*pair, key) for pair in pairs], fixed=fixed) for key in keys}
    return [Pair(*pair, {key: own[at] for key, own in means.items()}, _ahead(tables, *pair)) for at, pair in enumerate(pairs)]


def rivals(first: str, others: Sequence[str], tables: Tables, key: str, fixed: frozenset[str]) -> dict[str, float | None]:
    """Return for each of ``others`` the p-value of its difference to ``first``; None where there are too few seeds to test it.

    Who is first was seen, so all pairs of all of them are one family.
    """
    pairs = list(combinations([first, *others], 2))
    found = compare(tables, [(*pair, key) for pair in pairs], fixed=fixed)
    return {second: own.p for (one, second), own in zip(pairs, found, strict=True) if one == first}


def champion(tables: Tables, key: str) -> str | None:
    """Return the detector with the highest ``key`` if the test tells it from all others; None where nothing is separable.

    ``tables``: of detectors that were trained here, their resamples. One detector alone has beaten nobody.
    """
    if len(tables) < 2 or not all(key in table.column_names for own in tables.values() for table in own):
        return None
    first, *others = sorted(tables, key=lambda name: -_mean(tables[name], key))
    p = rivals(first, others, tables, key, frozenset()).values()
    return first if all(value is not None and value < ALPHA for value in p) else None


def compare_models(names: Sequence[str], read: Callable[[str], Scores]) -> list[Models]:
    """Return every pair of models, in the order of `compare_all`. ``read``: the scores of one."""
    found = list(_models(names, read))
    right = holm([own.right.p for own in found])
    pooled = iter(holm([own.auroc_pooled.p for own in found if own.auroc_pooled]))
    return [
        Models(
            replace(own.right, p=float(p)),
            replace(own.auroc_pooled, p=float(next(pooled))) if own.auroc_pooled else None,
        )
        for own, p in zip(found, right, strict=True)
    ]


def _models(names: Sequence[str], read: Callable[[str], Scores]) -> Iterator[Models]:
    for at, first in enumerate(names[:-1]):
        own = read(first)
        for second in names[at + 1 :]:
            other = read(second)
            if not np.array_equal(own.is_fake_N, other.is_fake_N):
                raise ValueError(
                    f"{first}, {second}: expected scores of the same images in the same order; run `dvc repro score`"
                )
            testable = min(own.is_fake_N.sum(), (~own.is_fake_N).sum()) >= 2
            pooled = delong(own.is_fake_N, own.logit_N, other.logit_N) if testable else None
            yield Models(mcnemar(_is_right(own), _is_right(other)), pooled)


def _ahead(tables: Mapping[str, Sequence[pa.Table]], first: str, second: str) -> tuple[int, int]:
    """Return on how many generators the first has the higher mean over seeds, and on how many both have one."""
    own, other = ({name: _mean(tables[which], name) for name in _generators(tables[which][0])} for which in (first, second))
    return sum(own[name] > other[name] for name in own if name in other), len(own.keys() & other.keys())


def _generators(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name.startswith(f"{PER_GENERATOR}/")]


def _mean(tables: Sequence[pa.Table], key: str) -> float:
    return float(np.mean([table[key][0].as_py() for table in tables]))


def _is_right(scores: Scores) -> np.ndarray:
    """Return whether each image is called what it is, (N,) bool."""
    return (scores.logit_N > THRESHOLD) == scores.is_fake_N
