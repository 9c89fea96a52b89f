"""Two detectors on the same images: is the difference more than chance? Pure functions of arrays and of tables of resamples.

What is asked decides the test. Which of two is right more often, on one set of images: `mcnemar`. Which ranks them better:
`delong`. Which has the better mean over the subsets of a benchmark, of one seed or of several: `difference`. Many questions at
once: `holm`. All of them speak of other images from the same subsets; none of another training run or another generator.

N images, K comparisons, R resamples. Differences are the first less the second, everything two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, ndtri

from nullscope.evaluation.resampling import LEVEL, interval

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class McNemar:
    """How often exactly one of two detectors is right, and how likely that is if neither is better."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Difference:
    """A difference with its 95 % interval and its p-value."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(correct_a_N: Bools, correct_b_N: Bools) -> McNemar:
    """Return McNemar's exact test of two detectors' right and wrong answers on the same images (McNemar 1947).

    Images on which both are right or both are wrong say nothing; of the others each has an even chance to be the first's. No
    such image: p is 1. Raises `ValueError` unless both have as many answers.
    """
    _check_lengths(correct_a_N, correct_b_N)
    only_first, only_second = int((correct_a_N & ~correct_b_N).sum()), int((~correct_a_N & correct_b_N).sum())
    fewer, both = min(only_first, only_second), only_first + only_second
    return McNemar(only_first, only_second, min(1.0, 2 * float(bdtr(fewer, both, 0.5))))


def delong(is_fake_N: Bools, logit_a_N: Floats, logit_b_N: Floats) -> Difference:
    """Return the difference of two AUROCs on the same images, with DeLong's variance (DeLong et al. 1988), ties counting half.

    O(N log N), as Sun & Xu 2014 showed. Where the variance is 0, as of two detectors that rank alike or both rank without a
    fault, the interval has no width and p is 1 for equal AUROCs, else 0. Raises `ValueError` unless there are two reals and
    two fakes at least, and a logit of both detectors for each image.
    """
    _check_lengths(is_fake_N, logit_a_N, logit_b_N)
    n_fake = int(is_fake_N.sum())
    n_real = len(is_fake_N) - n_fake
    if min(n_fake, n_real) < 2:
        raise ValueError(f"DeLong's test: expected two reals and two fakes at least, found {n_real} and {n_fake}")
    (fake_a, real_a), (fake_b, real_b) = _placements(is_fake_N, logit_a_N), _placements(is_fake_N, logit_b_N)
    fake, real = fake_a - fake_b, real_a - real_b
    value = float(fake.mean())
    error = float(np.sqrt(fake.var(ddof=1) / n_fake + real.var(ddof=1) / n_real))
    half = float(ndtri((1 + LEVEL) / 2)) * error
    p = 2 * float(ndtr(-abs(value) / error)) if error else float(value == 0)
    return Difference(value, value - half, value + half, p)


def difference(first: Sequence[pa.Table], second: Sequence[pa.Table], key: str) -> Difference:
    """Return the difference of the mean ``key`` of two detectors: one table of `resampling.resample_table` per seed of each.

    The value is that of the test set itself, low and high are the percentile interval of the resamples, and p is twice the
    share of resamples on the rarer side of 0, each side counting those at 0 and one more (Davison & Hinkley 1997, section 4.2),
    so that it is never below 2 / (R + 1). Several seeds are averaged resample by resample, which leaves the seeds' own spread
    out. Raises `ValueError` if there is no table, one lacks ``key``, or not all are of the same images.
    """
    if not first or not second:
        raise ValueError(f"{key}: expected a table of resamples of each detector at least, found {len(first)} and {len(second)}")
    strata = {(table.schema.metadata or {}).get(b"strata") for table in (*first, *second)}
    if len(strata) > 1 or None in strata or len({len(table) for table in (*first, *second)}) > 1:
        raise ValueError(f"{key}: the resamples are not of the same images and cannot be paired; run `dvc repro evaluate`")
    difference_R = _mean_of(first, key) - _mean_of(second, key)
    observed, resampled_R = float(difference_R[0]), difference_R[1:]
    rarer = min(int((resampled_R <= 0).sum()), int((resampled_R >= 0).sum()))
    return Difference(observed, *interval(resampled_R), min(1.0, 2 * (rarer + 1) / (len(resampled_R) + 1)))


def holm(p_K: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values of a family of K comparisons, adjusted so that any below 0.05 is wrong with a chance of at most 0.05.

    Holm 1979: the smallest is multiplied by K, the next by K - 1, and so on; none falls below a smaller one's, or above 1. In
    the order given. Raises `ValueError` on a p-value outside [0, 1].
    """
    p = np.asarray(p_K, np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values: expected numbers in [0, 1], found {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def _placements(is_fake_N: Bools, logit_N: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each fake the share of reals below it, and for each real the share of fakes above it, ties counting half.

    The mean of either is the AUROC.
    """
    fake, real = np.sort(logit_N[is_fake_N]), np.sort(logit_N[~is_fake_N])
    reals_below = _midrank(real, logit_N[is_fake_N]) / len(real)
    fakes_above = 1 - _midrank(fake, logit_N[~is_fake_N]) / len(fake)
    return reals_below, fakes_above


def _midrank(rising_N: Floats, values: Floats) -> NDArray[np.float64]:
    """Return how many of the sorted numbers lie below each value, those equal to it counting half."""
    return (np.searchsorted(rising_N, values, side="left") + np.searchsorted(rising_N, values, side="right")) / 2


def _mean_of(tables: Sequence[pa.Table], key: str) -> NDArray[np.float64]:
    """Return the mean of a column over tables, row by row: (1 + R,)."""
    for table in tables:
        if key not in table.column_names:
            raise ValueError(f"no resamples of {key!r}; known: {', '.join(table.column_names[1:])}")
    return np.mean([table[key].to_numpy() for table in tables], axis=0)


def _check_lengths(*arrays: NDArray) -> None:
    if len(lengths := {len(array) for array in arrays}) > 1:
        raise ValueError(f"expected the same images for both detectors, found arrays of {sorted(lengths)} images")
