"""Detectors on the same images: is the difference more than chance? Pure functions of arrays and of tables of resamples.

What is asked decides the test. Which of several detectors has the better mean over the subsets of a benchmark, over seeds and
images: `compare`, for a whole family of pairs at once. Of two fixed models: which is right more often, `mcnemar`; which ranks
better, `delong`; and `holm` for many such questions. None speaks of other generators: for that see `generators`.

N images, K comparisons, R resamples, S seeds. Differences are the first less the second, everything two-sided.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr

from nullscope.evaluation.intervals import LEVEL, Z_95
from nullscope.evaluation.seeds import ENOUGH

ROUNDING = 1e-12  # below this a difference of two means is an error of addition
SEED = "seeds"  # the name of the draws that stand for other trainings
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Question = tuple[str, str, str]
Tables = Mapping[str, Sequence[pa.Table]]  # detector -> a table of `resampling.resample_table` per seed


@dataclass(frozen=True)
class McNemar:
    """How often exactly one of two detectors is right, and how likely that is if neither is better."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Difference:
    """A difference with its 95 % interval and its p-value; None where there are too few seeds to test it."""

    value: float
    low: float
    high: float
    p: float | None


def compare(tables: Tables, questions: Sequence[Question], *, fixed: frozenset[str]) -> list[Difference]:
    """Return the answer to every question, with p-values for the family of all of them.

    A question is (first detector, second detector, name of a number in the tables). ``fixed`` names detectors that are one model
    each, such as released weights: no other training of them is in question. Of any other detector the seeds are a sample.

    The error of a difference has two parts: of the images (the resamples, averaged over seeds and paired), and of the seeds,
    s^2 / S of each detector. How many errors from 0 a difference lies that is none is drawn R times: the images' part by the
    resamples; the seeds' part by normal numbers of a variance that s^2 could stand for, in errors with an s^2 drawn from it.
    Against a fixed number this is Student's t with S - 1 degrees of freedom. Half of the interval of a pair alone is the 95 %
    quantile of the draws. p is adjusted for the family: the chance that, where no two differ, any lies as many errors from 0
    (max-T with the step-down of Romano and Wolf 2005, on the same draws for all questions); at least 1 / (R + 1).

    With fewer than `ENOUGH` seeds of a detector that is not fixed there is no error over seeds: the interval is that of the
    images alone, and p is None. Raises `ValueError` if a table lacks the number, or not all are of the same images.
    """
    asked = dict.fromkeys((name, key) for *pair, key in questions for name in pair)
    _check_paired([(table, key) for name, key in asked for table in tables[name]])
    spreads = {(name, key): _spread_of(name, tables[name], key, fixed=name in fixed) for name, key in asked}
    found = [_difference(spreads[first, key], spreads[second, key]) for first, second, key in questions]
    tested = [own for own in found if own.tested]
    adjusted = iter(max_t([own.distance for own in tested], [own.null_R for own in tested]))
    return [
        Difference(own.value, own.value - own.half, own.value + own.half, next(adjusted) if own.tested else None) for own in found
    ]


def max_t(distance_K: Sequence[float], null_KR: Sequence[Floats]) -> list[float]:
    """Return the p-values of K comparisons adjusted for each other (Romano and Wolf 2005, step-down).

    ``distance_K``: how many errors each lies from 0; ``null_KR``: the same in R draws where nothing differs, drawn together.
    The largest distance is held against the largest of all in each draw, the next against the largest without the first, and
    so on. None is below a larger distance's.
    """
    order = np.argsort(-np.asarray(distance_K), kind="stable")
    adjusted, so_far = np.ones(len(order)), 0.0
    # From the back: of each place, the largest in every draw among it and all behind it.
    rest_KR = np.maximum.accumulate([null_KR[own] for own in order[::-1]], axis=0)[::-1] if len(order) else ()
    for own, largest_R in zip(order, rest_KR, strict=True):
        so_far = max(so_far, (1 + int((largest_R >= distance_K[own]).sum())) / (1 + len(largest_R)))
        adjusted[own] = so_far
    return adjusted.tolist()


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
    p = 2 * float(ndtr(-abs(value) / error)) if error else float(value == 0)
    return Difference(value, value - Z_95 * error, value + Z_95 * error, p)


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


@dataclass(frozen=True)
class _Spread:
    """A number of one detector, and in R draws what other images and other seeds would make of it."""

    value: float
    images_R: Floats  # by how much other images move it
    seeds_R: Floats  # by how much other seeds do
    variance: float  # s^2 / S, of the mean over seeds
    variance_R: Floats  # the same of the seeds drawn
    tested: bool


@dataclass(frozen=True)
class _Drawn:
    """A difference, half of its interval, and how many errors it lies from 0: itself, and in R draws where there is none."""

    value: float
    half: float
    distance: float
    null_R: Floats
    tested: bool


def _spread_of(name: str, tables: Sequence[pa.Table], key: str, *, fixed: bool) -> _Spread:
    values_SR = np.array([table[key].to_numpy() for table in tables])
    value, resampled_R = float(values_SR[:, 0].mean()), values_SR[:, 1:].mean(axis=0)
    images_R, seeds = resampled_R - value, len(values_SR)
    none_R = np.zeros_like(images_R)
    if fixed or seeds < ENOUGH:
        return _Spread(value, images_R, none_R, 0.0, none_R, fixed)
    variance, degrees = float(values_SR[:, 0].var(ddof=1)) / seeds, seeds - 1
    rng = np.random.default_rng(zlib.crc32(f"{SEED}/{name}".encode()))
    true_R = variance * degrees / rng.chisquare(degrees, len(images_R))  # what s^2 / S could stand for
    seeds_R = np.sqrt(true_R) * rng.standard_normal(len(images_R))
    return _Spread(value, images_R, seeds_R, variance, true_R * rng.chisquare(degrees, len(images_R)) / degrees, True)


def _difference(first: _Spread, second: _Spread) -> _Drawn:
    value, images_R = first.value - second.value, first.images_R - second.images_R
    moved_R, images = np.abs(images_R + first.seeds_R - second.seeds_R), float(images_R.var(ddof=1))
    error, tested = float(np.sqrt(images + first.variance + second.variance)), first.tested and second.tested
    if error < ROUNDING:  # no image and no seed moves the two apart
        return _Drawn(value, 0.0, np.inf if abs(value) > ROUNDING else 0.0, np.zeros_like(moved_R), tested)
    null_R = moved_R / np.sqrt(images + first.variance_R + second.variance_R)
    return _Drawn(value, float(np.quantile(null_R, LEVEL)) * error, abs(value) / error, null_R, tested)


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


def _check_paired(asked: Sequence[tuple[pa.Table, str]]) -> None:
    """Raise `ValueError` unless every table has the number that it is asked for, and all are of the same images."""
    for table, key in asked:
        if key not in table.column_names:
            raise ValueError(f"no resamples of {key!r}; known: {', '.join(table.column_names[1:])}")
    strata = {(table.schema.metadata or {}).get(b"strata") for table, _ in asked}
    if len(strata) > 1 or None in strata or len({len(table) for table, _ in asked}) > 1:
        raise ValueError("the resamples are not of the same images and cannot be paired; run `dvc repro evaluate`")


def _check_lengths(*arrays: NDArray) -> None:
    if len(lengths := {len(array) for array in arrays}) > 1:
        raise ValueError(f"expected the same images for both detectors, found arrays of {sorted(lengths)} images")
