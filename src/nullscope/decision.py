"""From the logits of validation images to an answer about one image: what a threshold promises, and where to say "not sure".

Nothing here looks at test images. Every rate is a fraction in [0, 1]. N images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaincinv, expit

LEVEL = 0.95  # of an interval
RATE = 0.05  # false alarms that a decision promises where nobody asks for another rate
RATES = (0.01, 0.05)  # that a model card has
FOLDS = 5  # of the test whether a temperature helps
TEMPERATURES = (0.02, 50.0)  # within which one is looked for

Answer = Literal["generated", "real", "not sure"]
Floats = NDArray[np.float64]


class TooFewError(ValueError):
    """There are too few images to promise a rate."""


@dataclass(frozen=True)
class Promise:
    """A threshold, and the share of images beyond it to expect among others of the same kind."""

    rate: float  # that was asked for
    threshold: float  # logit
    images: int  # that it rests on
    low: float  # ends of the 95 % interval of the share on other images
    high: float


@dataclass(frozen=True)
class Decision:
    """How a logit becomes an answer."""

    threshold: float = 0.0  # logit above which an image is called generated
    band: tuple[float, float] | None = None  # logits between which the answer is "not sure", both ends included
    promise: Promise | None = None  # of false alarms; None: the threshold is that of training, and promises nothing
    temperature: float | None = None  # of probabilities; None: there are too few images to know it

    def answer(self, logit: float) -> Answer:
        """Return the answer about an image with this logit."""
        low, high = self.band or (self.threshold, self.threshold)
        if logit > high:
            return "generated"
        return "real" if logit < low or self.band is None else "not sure"

    def probability(self, logit: float) -> float | None:
        """Return the chance that an image with this logit is generated, where half of the images are; None if nobody can say."""
        return None if self.temperature is None else float(expit(logit / self.temperature))


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by to be calibrated, and proper scores without it and with it; both kinds weigh the same."""

    value: float
    log_loss: tuple[float, float]  # without, with; of images that the temperature was not fitted on
    brier: tuple[float, float]

    @property
    def helps(self) -> bool:
        """Whether both scores are lower with it."""
        return self.log_loss[1] < self.log_loss[0] and self.brier[1] < self.brier[0]


def alarms_allowed(reals: int, max_fpr: float) -> int | None:
    """Return how many of n ``reals`` a threshold may call fake if it is to call ``max_fpr`` of other reals fake.

    It is the largest k with (k + 1) / (n + 1) <= ``max_fpr``: a threshold at the (k + 1)-th highest of n reals calls (k + 1) /
    (n + 1) of further reals of the same source fake, on average (the mean of an order statistic of n uniform numbers), not k /
    n. None where n is too small: 99 reals are needed for 1 %, 19 for 5 %.
    """
    alarms = int(np.searchsorted(np.arange(1, reals + 2) / (reals + 1), max_fpr, side="right")) - 1
    return alarms if 0 <= alarms < reals else None


def promise(logit_N: ArrayLike, rate: float) -> Promise:
    """Return the threshold above which a share of at most ``rate`` of images like these lies, whatever others are drawn.

    It is the (k + 1)-th highest of n logits, k of `alarms_allowed`. The share of other images above it is then that of an order
    statistic: Beta(k + 1, n - k), whose quantiles are the interval. Where logits are equal the share is smaller. Raises
    `ValueError` on a rate that is none, and `TooFewError` where n is too small for it.
    """
    if not 0 < rate < 1:
        raise ValueError(f"a rate of false alarms: expected a number between 0 and 1, found {rate:g}")
    falling_N = np.sort(np.asarray(logit_N, np.float64))[::-1]
    allowed = alarms_allowed(len(falling_N), rate)
    if allowed is None:
        needed = math.ceil(1 / rate) - 1
        raise TooFewError(f"{len(falling_N)} images cannot promise a rate of {100 * rate:g} %: at least {needed} are needed")
    low, high = (float(betaincinv(allowed + 1, len(falling_N) - allowed, q)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Promise(rate, float(falling_N[allowed]), len(falling_N), low, high)


def decide(real_N: ArrayLike, fake_N: ArrayLike, rate: float = RATE, *, band: bool = True) -> Decision:
    """Return the decision that promises ``rate`` false alarms on reals like these.

    The band reaches from the logit below which at most ``rate`` of fakes like these lie to the threshold. Where that one is the
    higher of the two, no validation image lies between them, and "not sure" is the answer there as well. No band where it is
    not wanted, or with too few fakes. The temperature is 1 where none helps. Raises as `promise`.
    """
    alarms = promise(real_N, rate)
    try:
        missed = -promise(np.negative(np.asarray(fake_N, np.float64)), rate).threshold if band else None
    except TooFewError:
        missed = None
    ends = None if missed is None else (min(missed, alarms.threshold), max(missed, alarms.threshold))
    found = temperature(real_N, fake_N)
    return Decision(alarms.threshold, ends, alarms, found and (found.value if found.helps else 1.0))


def temperature(real_N: ArrayLike, fake_N: ArrayLike) -> Temperature | None:
    """Return the temperature with the lowest log loss (Guo et al. 2017); None with fewer than `FOLDS` images of a kind.

    Whether it helps is told by images that it was not fitted on: every fifth image of each kind, in the order of their logits, is
    left out in turn.
    """
    kinds = [np.sort(np.asarray(own, np.float64)) for own in (real_N, fake_N)]
    if min(map(len, kinds)) < FOLDS:
        return None
    losses, squares = np.zeros((FOLDS, 2)), np.zeros((FOLDS, 2))
    for fold in range(FOLDS):
        kept, left = ([np.delete(own, np.s_[fold::FOLDS]) for own in kinds], [own[fold::FOLDS] for own in kinds])
        for at, value in enumerate((1.0, _fitted(*kept))):
            losses[fold, at], squares[fold, at] = _log_loss(*left, value), _brier(*left, value)
    log_loss, brier = (tuple(map(float, own.mean(0))) for own in (losses, squares))
    return Temperature(_fitted(*kinds), log_loss, brier)


def _fitted(real_N: Floats, fake_N: Floats) -> float:
    found = minimize_scalar(lambda log: _log_loss(real_N, fake_N, math.exp(log)), bounds=np.log(TEMPERATURES), method="bounded")
    return float(math.exp(found.x))


def _log_loss(real_N: Floats, fake_N: Floats, value: float) -> float:
    return float(np.logaddexp(0, real_N / value).mean() + np.logaddexp(0, -fake_N / value).mean()) / 2


def _brier(real_N: Floats, fake_N: Floats, value: float) -> float:
    return float((expit(real_N / value) ** 2).mean() + (expit(-fake_N / value) ** 2).mean()) / 2
