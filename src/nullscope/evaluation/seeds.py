"""A number over seeds: its mean, with a 95 % interval. S seeds.

A seed decides the initial weights, the order of the images and what dropout drops. The training and the test images are the
same for every seed. So two things are uncertain at once: what another training would give, seen in the spread over seeds, and
what other test images would give, seen in the interval of every single run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nullscope.evaluation.intervals import ALPHA, student

ENOUGH = 3  # seeds for an interval: of two, it would be thirteen times as wide as their standard error (Student's t)


Span = Literal["none", "range", "interval"]


@dataclass(frozen=True)
class Spread:
    """A number that is uncertain, and how far: from ``low`` to ``high``."""

    mean: float
    low: float
    high: float
    seeds: int
    span: Span = "none"  # what low and high are: the mean itself, the lowest and highest seed, or the ends of a 95 % interval
    p: float | None = None  # of a difference that was tested

    @property
    def half(self) -> float:
        """Half the width of the span."""
        return (self.high - self.low) / 2


def is_outside(value: object, limits: tuple[float, float] | None) -> bool:
    """Return whether ``value`` is a `Spread` whose 95 % interval lies wholly outside of ``limits``."""
    if limits is None or not isinstance(value, Spread) or value.span != "interval":
        return False
    return value.low > limits[1] or value.high < limits[0]


def is_significant(value: object) -> bool:
    """Return whether ``value`` is a `Spread` of a difference that was tested and differs: p is below `ALPHA`."""
    return isinstance(value, Spread) and value.p is not None and value.p < ALPHA


def over_seeds(values_S: ArrayLike) -> Spread:
    """Return the mean, with its 95 % interval from three seeds on; of two seeds, with the lower and the higher value."""
    values = np.asarray(values_S, np.float64)
    if len(values) == 2:
        return Spread(float(values.mean()), float(values.min()), float(values.max()), 2, "range")
    return estimate(values)


def estimate(values_S: ArrayLike) -> Spread:
    """Return the mean with its 95 % interval (Student's t, S - 1 degrees of freedom); of fewer than three seeds, without one."""
    values = np.asarray(values_S, np.float64)
    mean = float(values.mean())
    if len(values) < ENOUGH:
        return Spread(mean, mean, mean, len(values))
    half = student(len(values) - 1) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return Spread(mean, mean - half, mean + half, len(values), "interval")


def over_seeds_and_images(found_S: Sequence[Spread]) -> Spread:
    """Return the mean over seeds of a fraction that every run has with its interval over images, both errors in one interval.

    The distance from the mean to an end is that of the images, the mean over seeds, and that of the seeds (`estimate`), added
    in quadrature (Zou & Donner 2008). All seeds have the same images, so averaging takes nothing off the first. With fewer
    than three seeds the interval is that of the images alone.
    """
    seeds = estimate([own.mean for own in found_S])
    below, above = (float(np.mean([abs(getattr(own, end) - own.mean) for own in found_S])) for end in ("low", "high"))
    low, high = seeds.mean - np.hypot(below, seeds.half), seeds.mean + np.hypot(above, seeds.half)
    return Spread(seeds.mean, max(0.0, float(low)), min(1.0, float(high)), len(found_S), "interval")
