"""A number over seeds: its mean, with a 95 % interval. S seeds.

A seed decides the initial weights, the order of the images and what dropout drops. The training and the test images are the same
for every seed. So an interval tells what another seed could give, not what another test set could.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

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

    @property
    def half(self) -> float:
        """Half the width of the span."""
        return (self.high - self.low) / 2


def is_outside(value: object, limits: tuple[float, float] | None) -> bool:
    """Return whether ``value`` is a `Spread` whose 95 % interval lies wholly outside of ``limits``."""
    if limits is None or not isinstance(value, Spread) or value.span != "interval":
        return False
    return value.low > limits[1] or value.high < limits[0]


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
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return Spread(mean, mean - half, mean + half, len(values), "interval")
