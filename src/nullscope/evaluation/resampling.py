"""Resamples of a test set: the stratified bootstrap behind the intervals and the paired comparisons (Efron & Tibshirani 1993).

A stratum is the images of one label in one subset. Within every stratum as many images are drawn, with replacement, as it
holds, `RESAMPLES` times. The draws come from the name and the size of the stratum alone, never from a detector: resample r of
two detectors holds the same images as long as their score files list them in the same order, as `score` writes them. So the
difference of two detectors is paired, and the mean over seeds of one detector is a mean over the same images.

Where the scores have the column ``group`` (images of one prompt, of one source image), whole groups are drawn in place of images,
from all groups of the test set at once, whatever subsets and labels their images have.

No resample is ever sorted. The logits are sorted once, a draw is a count per image in that order, and every statistic of a
resample follows from the running sums of these counts: O(N) per resample, in blocks of bounded memory.

B resamples of a block, G distinct logits of fakes, N images, R resamples.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nullscope.core.contracts import FAKE, REAL
from nullscope.decision import alarms_allowed
from nullscope.evaluation.reals import reals_for
from nullscope.tables.parquet import read_schema, read_table

RESAMPLES = 1000
SEED = "bootstrap"  # the draws' name; another one would be other draws, as would another version of numpy's generator
BLOCK = 2**18  # images drawn at a time (at least one resample); bounds the memory, changes no draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Resamples: TypeAlias = dict[str, NDArray[np.float64]]  # name of a statistic -> (R,)


@dataclass(frozen=True)
class Groups:
    """Which group each image of every stratum belongs to, as the number of the group among all of the test set."""

    count: int
    of: dict[tuple[str, int], Ints]  # (subset, label) -> (N,)


@dataclass(frozen=True)
class Strata:
    """The logits of every subset's reals and fakes, in the order of the scores, and which reals each subset is compared with."""

    reals: dict[str, Floats]
    fakes: dict[str, Floats]
    lenders: dict[str, tuple[str, ...]]  # for each subset, those whose reals it is compared with (`reals.reals_for`)
    images: str = ""  # a hash of the images' ids, in the order of the scores, where the scores have them
    groups: Groups | None = field(default=None, compare=False)  # None: every image is one

    @classmethod
    def of(cls, rows: pa.Table, named: Mapping[str, str]) -> Strata:
        """Return the strata of some rows of `contracts.SCORES`, by name; ``named`` as `protocol.evaluate` has it.

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
        groups = None
        if "group" in rows.column_names:
            of_all, group_N = np.unique(rows["group"].to_numpy(zero_copy_only=False), return_inverse=True)
            masks = {(name, label): own[name] & (is_fake_N == (label == FAKE)) for name in own for label in (REAL, FAKE)}
            groups = Groups(len(of_all), {key: group_N[mask_N] for key, mask_N in masks.items()})
        return cls(reals, fakes, lenders, _hash_of(rows, ("image_id", "group")), groups)

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

    Reals that several subsets are compared with are drawn once for all of them, and a stratum that is part of two pools of
    reals is drawn alike in both. The statistics are r_acc, f_acc, acc, balanced_acc, ap and auroc as `metrics` defines them at
    ``threshold``, and one per entry of ``max_fpr``: the share of fakes found at so many false alarms, where there are reals
    enough for it. Without reals or without fakes only f_acc or r_acc is defined.
    """
    lenders = {name: strata.lenders[name] for name in subsets}
    found: dict[str, list[Resamples]] = {name: [] for name in lenders}
    for pool in dict.fromkeys(lenders.values()):
        real = _Drawn(REAL, {name: strata.reals[name] for name in pool}, strata.groups)
        fakes = {name: _Drawn(FAKE, {name: strata.fakes[name]}, strata.groups) for name in lenders if lenders[name] == pool}
        pairs = {name: _Pair(real, fake, threshold, max_fpr) for name, fake in fakes.items()}
        for size in _blocks(max(len(sample) for sample in (real, *fakes.values()))):
            real_sum_BN = real.draw(size)
            for name, fake in fakes.items():
                found[name].append(pairs[name].statistics(real_sum_BN, fake.draw(size)))
    return {name: {key: np.concatenate([b[key] for b in blocks]) for key in blocks[0]} for name, blocks in found.items()}


def resample_schema(keys: Iterable[str]) -> pa.Schema:
    """Return the schema of ``data/evaluated/<run>.parquet``: a row per resample, a column per number.

    ``<key>`` is a mean over subsets, ``<key>/<subset>`` that number of one subset. Resample 0 is the test set as it is; the
    bootstrap's are 1 to `RESAMPLES`.
    """
    numbers = [pa.field(key, pa.float64(), nullable=False) for key in keys]
    return pa.schema([pa.field("resample", pa.int32(), nullable=False), *numbers])


def resample_table(observed: Mapping[str, float], resamples: Resamples, strata: Strata) -> pa.Table:
    """Return ``resamples`` with what was ``observed`` on the whole test set in front, of `resample_schema`, sorted by name.

    The strata's fingerprint goes into the metadata, so that no two test sets are taken for paired.
    """
    keys = sorted(resamples)
    columns = [np.concatenate([[observed[key]], resamples[key]]) for key in keys]
    numbers = np.arange(RESAMPLES + 1, dtype=np.int32)
    return pa.table([numbers, *columns], schema=resample_schema(keys).with_metadata({"strata": strata.fingerprint}))


def read_resamples(path: Path) -> pa.Table:
    """Return the table of ``data/evaluated/<run>.parquet``. Raises `ContractError` on other columns than `resample_schema`'s."""
    return read_table(path, resample_schema(read_schema(path).names[1:]))


def _hash_of(rows: pa.Table, columns: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in (name for name in columns if name in rows.column_names):
        for chunk in rows[name].chunks:
            digest.update("".join(map(str, chunk.to_pylist())).encode())
    return digest.hexdigest()


class _Drawn:
    """The images of one label, of one subset or of several, and their draws."""

    def __init__(self, label: int, strata: Mapping[str, Floats], groups: Groups | None) -> None:
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
        self._groups = groups
        if groups:  # of all strata alike: a group is drawn, or not, with all of its images
            self._rng = np.random.default_rng(zlib.crc32(f"{SEED}/groups".encode()))
            group_N = np.concatenate([np.empty(0, np.int64), *(groups.of[name, label] for name in strata)])
            self._group_N = group_N[order]

    def __len__(self) -> int:
        return len(self.falling_N)

    def draw(self, resamples: int) -> NDArray[np.int64]:
        """Return the next resamples: (B, N + 1), how many of the images drawn are among the i highest logits of the sample."""
        sum_BN = np.zeros((resamples, len(self) + 1), np.int64)
        for sum_N in sum_BN if self._parts else ():
            # One resample at a time: the stream of draws must not depend on the size of a block.
            np.cumsum(self._counts(), out=sum_N[1:])
        return sum_BN

    def _counts(self) -> NDArray[np.int64]:
        """Return how often each image is drawn, (N,) in the order of falling logits."""
        if self._groups:
            drawn = self._rng.integers(0, self._groups.count, self._groups.count)
            count_N = np.bincount(drawn, minlength=self._groups.count)[self._group_N]
            return count_N if count_N.any() else np.ones_like(count_N)  # no group of a small stratum: its images as they are
        parts = [place_N[rng.integers(0, len(place_N), len(place_N))] for rng, place_N in self._parts]
        return np.bincount(np.concatenate(parts), minlength=len(self))

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
        allowed = {key: alarms_allowed(len(real), rate) for key, rate in max_fpr.items()}
        self.max_fpr = {key: max_fpr[key] for key, alarms in allowed.items() if alarms is not None}

    def statistics(self, real_sum_BN: NDArray[np.int64], fake_sum_BN: NDArray[np.int64]) -> Resamples:
        """Return what is defined of each of B resamples, given the sums of `_Drawn.draw`; of groups, their sizes differ."""
        n_real_B, n_fake_B = real_sum_BN[:, -1], fake_sum_BN[:, -1]
        real_right_B = n_real_B - real_sum_BN[:, self.called_real]
        fake_right_B = fake_sum_BN[:, self.called_fake]
        values: Resamples = {}
        if len(self.real):
            values["r_acc"] = real_right_B / n_real_B
        if len(self.fake):
            values["f_acc"] = fake_right_B / n_fake_B
        if len(self.real) and len(self.fake):
            values["acc"] = (real_right_B + fake_right_B) / (n_real_B + n_fake_B)
            values["balanced_acc"] = (values["r_acc"] + values["f_acc"]) / 2
            values |= self._rankings(real_sum_BN, fake_sum_BN, n_real_B, n_fake_B)
            values |= {key: self._found(real_sum_BN, fake_sum_BN, rate) for key, rate in self.max_fpr.items()}
        return values

    def _rankings(self, real_sum_BN: Ints, fake_sum_BN: Ints, n_real_B: Ints, n_fake_B: Ints) -> Resamples:
        """Return ap and auroc. A threshold at which no fake was drawn adds nothing to either: its step of recall is 0."""
        # np.take, as a[:, places] would lay the columns out one after the other: slower, and summed in another order.
        hit_BG, false_BG = np.take(fake_sum_BN, self.fake_G, axis=1), np.take(real_sum_BN, self.real_G, axis=1)
        step_BG = np.diff(hit_BG, axis=1, prepend=0)
        # Of a tie, half of the reals count as below. Whole numbers up to the last division: exact in any order.
        below_BG = 2 * n_real_B[:, None] - false_BG - np.take(real_sum_BN, self.above_G, axis=1)
        precision_BG = hit_BG / np.maximum(hit_BG + false_BG, 1)
        return {
            "ap": (step_BG * precision_BG).sum(axis=1) / n_fake_B,
            "auroc": (step_BG * below_BG).sum(axis=1) / (2 * n_real_B * n_fake_B),
        }

    def _found(self, real_sum_BN: NDArray[np.int64], fake_sum_BN: NDArray[np.int64], max_fpr: float) -> NDArray[np.float64]:
        """Return the share of fakes above the first real that would be one false alarm too many."""
        sizes = real_sum_BN[:, -1]
        allowed = {int(size): alarms_allowed(int(size), max_fpr) or 0 for size in np.unique(sizes)}
        first_B = [np.searchsorted(sum_N[1:], allowed[int(sum_N[-1])], side="right") for sum_N in real_sum_BN]
        places_B = self.fake.above(self.real.falling_N[np.minimum(first_B, len(self.real) - 1)])
        return fake_sum_BN[np.arange(len(fake_sum_BN)), places_B] / fake_sum_BN[:, -1]


def _blocks(images: int) -> Iterator[int]:
    """Yield the sizes of blocks that make up `RESAMPLES`."""
    size = max(1, BLOCK // max(images, 1))
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)
