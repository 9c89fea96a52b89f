"""Resamples of a test set: the stratified bootstrap behind the intervals and the paired comparisons (Efron & Tibshirani 1993).

A stratum is the images of one label in one subset. Within every stratum as many images are drawn, with replacement, as it
holds, `RESAMPLES` times. The draws come from the name and the size of the stratum alone, never from a detector: resample r of
two detectors holds the same images as long as their score files list them in the same order, as `score` writes them. So the
difference of two detectors is paired, and the mean over seeds of one detector is a mean over the same images.

No resample is ever sorted. The logits are sorted once, a draw is a count per image in that order, and every statistic of a
resample follows from the running sums of these counts: O(N) per resample, in blocks of bounded memory.

B resamples of a block, G distinct logits of fakes, N images, R resamples.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nullscope.core.contracts import FAKE, REAL
from nullscope.evaluation.reals import reals_for

RESAMPLES = 1000
SEED = "bootstrap"  # the draws' name; another one would be other draws, as would another version of numpy's generator
LEVEL = 0.95
BLOCK = 2**18  # images drawn at a time (at least one resample); bounds the memory, changes no draw

Floats = NDArray[np.floating]
Resamples: TypeAlias = dict[str, NDArray[np.float64]]  # name of a statistic -> (R,)


def interval(values_R: Floats) -> tuple[float, float]:
    """Return the ends of the percentile interval at `LEVEL`: the 2.5 and the 97.5 % quantile of the resamples."""
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Strata:
    """The logits of every subset's reals and fakes, in the order of the scores, and which reals each subset is compared with."""

    reals: dict[str, Floats]
    fakes: dict[str, Floats]
    lenders: dict[str, tuple[str, ...]]  # for each subset, those whose reals it is compared with (`reals.reals_for`)
    images: str = ""  # a hash of the images' ids, in the order of the scores, where the scores have them

    @classmethod
    def of(cls, rows: pa.Table, named: Mapping[str, str]) -> Strata:
        """Return the strata of some rows of `contracts.SCORES`, by name; ``named`` as `metrics.evaluate` has it.

        Raises `ValueError` as `reals.reals_for` does.
        """
        coded = rows["subset"].combine_chunks().dictionary_encode()
        code_N, is_fake_N = coded.indices.to_numpy(), rows["label"].to_numpy() == FAKE
        logit_N = rows["logit"].to_numpy().astype(np.float64)
        names = coded.dictionary.to_pylist()
        own = {name: code_N == names.index(name) for name in sorted(names)}
        reals = {name: logit_N[mask_N & ~is_fake_N] for name, mask_N in own.items()}
        fakes = {name: logit_N[mask_N & is_fake_N] for name, mask_N in own.items()}
        lenders = reals_for({n: len(reals[n]) for n in own}, {n: len(fakes[n]) for n in own}, named)
        return cls(reals, fakes, lenders, _hash_of_images(rows))

    def reals_of(self, names: Iterable[str]) -> Floats:
        """Return the logits of the reals of some subsets."""
        return np.concatenate([np.empty(0), *(self.reals[name] for name in names)])

    @property
    def fingerprint(self) -> str:
        """A hash of the images, the strata and the lenders: equal where resamples are of the same images."""
        facts = [[name, len(self.reals[name]), len(self.fakes[name]), lenders] for name, lenders in self.lenders.items()]
        return hashlib.sha256(json.dumps([SEED, self.images, facts]).encode()).hexdigest()


def resample(strata: Strata, subsets: Iterable[str], *, threshold: float, max_fpr: Mapping[str, float]) -> dict[str, Resamples]:
    """Return `RESAMPLES` values of every statistic of each of ``subsets``.

    Reals that several subsets are compared with are drawn once for all of them, and a stratum that is part of two pools of reals
    is drawn alike in both. The statistics are r_acc, f_acc, acc, balanced_acc, ap and auroc as `metrics` defines them at
    ``threshold``, and one per entry of ``max_fpr``: the share of fakes found at so many false alarms (below 1). Without reals or
    without fakes only f_acc or r_acc is defined.
    """
    lenders = {name: strata.lenders[name] for name in subsets}
    found: dict[str, list[Resamples]] = {name: [] for name in lenders}
    for pool in dict.fromkeys(lenders.values()):
        real = _Drawn(REAL, {name: strata.reals[name] for name in pool})
        fakes = {name: _Drawn(FAKE, {name: strata.fakes[name]}) for name in lenders if lenders[name] == pool}
        pairs = {name: _Pair(real, fake, threshold, max_fpr) for name, fake in fakes.items()}
        for size in _blocks(max(len(sample) for sample in (real, *fakes.values()))):
            real_sum_BN = real.draw(size)
            for name, fake in fakes.items():
                found[name].append(pairs[name].statistics(real_sum_BN, fake.draw(size)))
    return {name: {key: np.concatenate([b[key] for b in blocks]) for key in blocks[0]} for name, blocks in found.items()}


def resample_schema(keys: Iterable[str]) -> pa.Schema:
    """Return the schema of ``data/evaluated/<run>.parquet``: a row per resample, a column per mean over subsets.

    Resample 0 is the test set as it is; the bootstrap's are 1 to `RESAMPLES`.
    """
    means = [pa.field(key, pa.float64(), nullable=False) for key in keys]
    return pa.schema([pa.field("resample", pa.int32(), nullable=False), *means])


def resample_table(observed: Mapping[str, float], resamples: Resamples, strata: Strata) -> pa.Table:
    """Return ``resamples`` with what was ``observed`` on the whole test set in front, of `resample_schema`, sorted by name.

    The strata's fingerprint goes into the metadata, so that no two test sets are taken for paired.
    """
    keys = sorted(resamples)
    columns = [np.concatenate([[observed[key]], resamples[key]]) for key in keys]
    numbers = np.arange(RESAMPLES + 1, dtype=np.int32)
    return pa.table([numbers, *columns], schema=resample_schema(keys).with_metadata({"strata": strata.fingerprint}))


def _hash_of_images(rows: pa.Table) -> str:
    if "image_id" not in rows.column_names:
        return ""
    digest = hashlib.sha256()
    for chunk in rows["image_id"].chunks:
        digest.update("".join(chunk.to_pylist()).encode())
    return digest.hexdigest()


class _Drawn:
    """The images of one label, of one subset or of several, and their draws."""

    def __init__(self, label: int, strata: Mapping[str, Floats]) -> None:
        logit_N = np.concatenate([np.empty(0), *strata.values()])
        order = np.argsort(-logit_N, kind="stable")
        place_N = np.empty(len(order), np.int64)
        place_N[order] = np.arange(len(order))
        ends = np.cumsum([len(logits) for logits in strata.values()])
        self.falling_N = logit_N[order]
        self._parts = [
            (np.random.default_rng(zlib.crc32(f"{SEED}/{name}/{label}".encode())), place_N[end - len(logits) : end])
            for (name, logits), end in zip(strata.items(), ends, strict=True)
            if len(logits)
        ]

    def __len__(self) -> int:
        return len(self.falling_N)

    def draw(self, resamples: int) -> NDArray[np.int64]:
        """Return the next resamples: (B, N + 1), how many of the images drawn are among the i highest logits of the sample."""
        sum_BN = np.zeros((resamples, len(self) + 1), np.int64)
        for sum_N in sum_BN if self._parts else ():
            # One resample at a time: the stream of draws must not depend on the size of a block.
            drawn = [place_N[rng.integers(0, len(place_N), len(place_N))] for rng, place_N in self._parts]
            np.cumsum(np.bincount(np.concatenate(drawn), minlength=len(self)), out=sum_N[1:])
        return sum_BN

    def at_least(self, logits: Floats) -> NDArray[np.int64]:
        """Return how many images of the sample have a logit of at least each of ``logits``: places in the sums of `draw`."""
        return np.searchsorted(-self.falling_N, -np.asarray(logits), side="right")

    def above(self, logits: Floats) -> NDArray[np.int64]:
        """Return how many images have a logit above each of ``logits``."""
        return np.searchsorted(-self.falling_N, -np.asarray(logits), side="left")


class _Pair:
    """The fakes of a subset, the reals they are compared with, and the places at which their running sums are read."""

    def __init__(self, real: _Drawn, fake: _Drawn, threshold: float, max_fpr: Mapping[str, float]) -> None:
        self.real, self.fake = real, fake
        self.called_real, self.called_fake = real.above(threshold), fake.above(threshold)
        falling_G = np.unique(fake.falling_N)[::-1]  # images of one logit are called fake together
        self.fake_G, self.real_G, self.above_G = fake.at_least(falling_G), real.at_least(falling_G), real.above(falling_G)
        # Counted with the very comparison of `metrics.tpr_at_fpr`: 0.05 * 20 need not be 1.
        fpr_N = np.arange(1, len(real) + 1) / max(len(real), 1)
        self.alarms = {key: int(np.searchsorted(fpr_N, rate, side="right")) for key, rate in max_fpr.items()}

    def statistics(self, real_sum_BN: NDArray[np.int64], fake_sum_BN: NDArray[np.int64]) -> Resamples:
        """Return what is defined of each of B resamples, given the sums of `_Drawn.draw`."""
        n_real, n_fake = len(self.real), len(self.fake)
        real_right_B = n_real - real_sum_BN[:, self.called_real]
        fake_right_B = fake_sum_BN[:, self.called_fake]
        values: Resamples = {}
        if n_real:
            values["r_acc"] = real_right_B / n_real
        if n_fake:
            values["f_acc"] = fake_right_B / n_fake
        if n_real and n_fake:
            values["acc"] = (real_right_B + fake_right_B) / (n_real + n_fake)
            values["balanced_acc"] = (values["r_acc"] + values["f_acc"]) / 2
            values |= self._rankings(real_sum_BN, fake_sum_BN)
            values |= {key: self._found(real_sum_BN, fake_sum_BN, alarms) for key, alarms in self.alarms.items()}
        return values

    def _rankings(self, real_sum_BN: NDArray[np.int64], fake_sum_BN: NDArray[np.int64]) -> Resamples:
        """Return ap and auroc. A threshold at which no fake was drawn adds nothing to either: its step of recall is 0."""
        # np.take, as a[:, places] would lay the columns out one after the other: slower, and summed in another order.
        hit_BG, false_BG = np.take(fake_sum_BN, self.fake_G, axis=1), np.take(real_sum_BN, self.real_G, axis=1)
        step_BG = np.diff(hit_BG, axis=1, prepend=0)
        # Of a tie, half of the reals count as below. Whole numbers up to the last division: exact in any order.
        below_BG = 2 * len(self.real) - false_BG - np.take(real_sum_BN, self.above_G, axis=1)
        precision_BG = hit_BG / np.maximum(hit_BG + false_BG, 1)
        return {
            "ap": (step_BG * precision_BG).sum(axis=1) / len(self.fake),
            "auroc": (step_BG * below_BG).sum(axis=1) / (2 * len(self.real) * len(self.fake)),
        }

    def _found(self, real_sum_BN: NDArray[np.int64], fake_sum_BN: NDArray[np.int64], alarms: int) -> NDArray[np.float64]:
        """Return the share of fakes above the first real that would be one false alarm too many."""
        first_B = [np.searchsorted(sum_N[1:], alarms, side="right") for sum_N in real_sum_BN]
        places_B = self.fake.above(self.real.falling_N[first_B])
        return fake_sum_BN[np.arange(len(fake_sum_BN)), places_B] / len(self.fake)


def _blocks(images: int) -> Iterator[int]:
    """Yield the sizes of blocks that make up `RESAMPLES`."""
    size = max(1, BLOCK // max(images, 1))
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)
