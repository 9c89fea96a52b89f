"""Numbers over seeds: means, 95 % intervals of the mean, differences paired by seed. S seeds.

A seed draws the initial weights, the order of the images and what dropout drops; the training and the test images are the same
for every seed. So an interval says what another seed would do, not what another test set would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from nullscope.report.layout import Spread

ENOUGH = 3  # seeds of an interval: with two, Student's t makes it thirteen times as wide as their standard error


def over_seeds(values_S: ArrayLike) -> Spread:
    """Return the mean, with its 95 % interval from three seeds on, and of two seeds with the lower and the higher."""
    values = np.asarray(values_S, np.float64)
    if len(values) == 2:
        return Spread(float(values.mean()), float(values.min()), float(values.max()), 2, "range")
    return estimate(values)


def estimate(values_S: ArrayLike) -> Spread:
    """Return the mean with its 95 % interval (Student's t, S - 1 degrees of freedom), or alone of fewer than three seeds."""
    values = np.asarray(values_S, np.float64)
    mean = float(values.mean())
    if len(values) < ENOUGH:
        return Spread(mean, mean, mean, len(values))
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return Spread(mean, mean - half, mean + half, len(values), "interval")


def by_detector(summary: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what there is of each run, ``<detector>-<seed>``, under the detector's name: a list over seeds, in their order."""
    grouped: dict[str, list[Any]] = {}
    for run, own in summary.items():
        grouped.setdefault(run.rpartition("-")[0], []).append(own)
    return grouped


def spread(runs: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    """Return a number of every run over seeds, or none where it is not defined."""
    values = [run[key] for run in runs if key in run]
    return over_seeds(values) if values else None


def mean_of(runs: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    """Return `estimate` of a number of every run, or none where it is not defined."""
    values = [run[key] for run in runs if key in run]
    return estimate(values) if values else None


def difference(runs: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    """Return `estimate` of a number less that of ``first`` at the same seed, or none where it is not defined for both."""
    pairs = [(run[key], other[key]) for run, other in zip(runs, first, strict=True) if key in run and key in other]
    return estimate([own - other for own, other in pairs]) if pairs else None
