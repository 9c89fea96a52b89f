"""What a verdict is worth where fakes are rare: predictive values (Bayes' rule)."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from nullscope.evaluation.seeds import Spread

PREVALENCES = (0.5, 0.1, 0.01)  # shares of the images that are fake


def predictive_values(reals: Spread, fakes: Spread, share: float) -> tuple[Spread | None, Spread | None]:
    """Return the share of the images called fake that are fake, and of those called real that are real.

    ``reals``, ``fakes``: the shares of reals and of fakes that are called what they are, each with its 95 % interval or without;
    ``share``: of the images that are fake. None where no image would be called so.
    """
    return _value(fakes, _rest(reals), float(logit(share))), _value(reals, _rest(fakes), float(-logit(share)))


def _rest(rate: Spread) -> Spread:
    return Spread(1 - rate.mean, 1 - rate.high, 1 - rate.low, rate.seeds, rate.span)


def _value(right: Spread, wrong: Spread, odds: float) -> Spread | None:
    """Return right / (right + wrong) at prior log odds, both independent.

    The log odds are ``odds`` + log right - log wrong; the distances of the two logarithms to their ends are added in quadrature
    (Zou & Donner 2008). Where a rate is 0 its logarithm has no distance: the end of the other one's stands there alone.
    """
    if right.mean == wrong.mean == 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = {end: (np.log(getattr(right, end)), np.log(getattr(wrong, end))) for end in ("low", "mean", "high")}
        below = np.nan_to_num([logs["mean"][0] - logs["low"][0], logs["high"][1] - logs["mean"][1]], nan=0.0)
        above = np.nan_to_num([logs["high"][0] - logs["mean"][0], logs["mean"][1] - logs["low"][1]], nan=0.0)
        middle = odds + logs["mean"][0] - logs["mean"][1]
        low = middle - np.hypot(*below) if np.isfinite(middle) else odds + logs["low"][0] - logs["high"][1]
        high = middle + np.hypot(*above) if np.isfinite(middle) else odds + logs["high"][0] - logs["low"][1]
    return Spread(float(expit(middle)), float(expit(low)), float(expit(high)), right.seeds, right.span)
