"""95 % intervals of rates and of numbers between 0 and 1. All ends are fractions in [0, 1] and hold the number itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

LEVEL, ALPHA = 0.95, 0.05  # of an interval; of a test
Z_95 = float(ndtri((1 + LEVEL) / 2))  # standard normal quantile at 0.975


def student(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t with so many degrees of freedom."""
    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def wilson(rate: float, count: float) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a ``rate`` seen in ``count`` trials (Wilson 1927; no trial: the whole of [0, 1])."""
    if not count:
        return 0.0, 1.0
    centre = rate + Z_95**2 / (2 * count)
    margin = Z_95 * np.sqrt(rate * (1 - rate) / count + Z_95**2 / (4 * count**2))
    scale = 1 + Z_95**2 / count
    # At a rate of 0 or 1 one end is the rate itself, and rounding must not move it past.
    return float(np.clip((centre - margin) / scale, 0, rate)), float(np.clip((centre + margin) / scale, rate, 1))


def newcombe(rates: Sequence[float], counts: Sequence[int], shares: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a sum of independent rates, each times its share; the shares sum to 1.

    The distances from every rate to the ends of its Wilson interval, times its share, are added in quadrature (Newcombe 1998,
    method 10, for a weighted sum in place of a difference; Zou & Donner 2008).
    """
    lows, highs = np.transpose([wilson(rate, count) for rate, count in zip(rates, counts, strict=True)])
    value = float(np.dot(shares, rates))
    below, above = np.multiply(shares, np.subtract(rates, lows)), np.multiply(shares, np.subtract(highs, rates))
    return _around(value, value - float(np.hypot.reduce(below)), value + float(np.hypot.reduce(above)))


def on_logit_scale(value: float, error: float, quantile: float = Z_95) -> tuple[float, float]:
    """Return logistic(logit(value) -+ quantile * error / (value (1 - value))): a normal interval of the logit.

    ``error`` is the standard error of ``value``; the division carries it over to the scale of the logit (delta method). At 0
    and 1 that scale has no end, and the interval is the number alone.
    """
    if not 0 < value < 1:
        return value, value
    half = quantile * error / (value * (1 - value))
    return _around(value, float(expit(logit(value) - half)), float(expit(logit(value) + half)))


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    return float(np.clip(low, 0, value)), float(np.clip(high, value, 1))
