"""From the scores of some images to one number each. Pure functions of arrays.

``is_fake_N`` is bool, ``logit_N`` float, above `THRESHOLD` (strictly) is called fake. Every rate is a fraction in [0, 1].
Definitions follow what the papers' code computes (validate.py of AIGIBench, the same in DGS-Net and UniversalFakeDetect);
`protocol` applies them per subset and takes the means.

N images.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from nullscope.decision import alarms_allowed

THRESHOLD = 0.0  # logit; the papers' p > 0.5
MAX_FPR = MappingProxyType({"tpr_1": 0.01, "tpr_5": 0.05})  # shares of fakes found, at how many false alarms at most
BINS = 15  # of predicted probabilities, of equal width
DIGITS = 6  # of every number of a JSON file; a test set of a million images resolves no more

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]


def pooled(real_N: Floats, fake_N: Floats) -> tuple[Bools, Floats]:
    """Return the logits of some reals and of some fakes as the functions below take them: (is_fake_N, logit_N)."""
    return np.repeat([False, True], [len(real_N), len(fake_N)]), np.concatenate([real_N, fake_N])


def real_accuracy(is_fake_N: Bools, logit_N: Floats, threshold: float = THRESHOLD) -> float:
    """Return the share of reals that are called real (logit <= threshold). NaN if there are none."""
    return _share(logit_N[~is_fake_N] <= threshold)


def fake_accuracy(is_fake_N: Bools, logit_N: Floats, threshold: float = THRESHOLD) -> float:
    """Return the share of fakes that are called fake (logit > threshold). NaN if there are none."""
    return _share(logit_N[is_fake_N] > threshold)


def accuracy(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the share of images that are called what they are."""
    return _share((logit_N > THRESHOLD) == is_fake_N)


def balanced_accuracy(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the mean of real and fake accuracy; unlike accuracy, it does not move with the share of fakes."""
    return (real_accuracy(is_fake_N, logit_N) + fake_accuracy(is_fake_N, logit_N)) / 2


def average_precision(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the average precision, fake as positive: the sum over thresholds of precision times the step of recall."""
    return float(average_precision_score(is_fake_N, logit_N))


def auroc(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the area under the ROC curve: the chance that a fake scores above a real, ties counting half."""
    return float(roc_auc_score(is_fake_N, logit_N))


def tpr_at_fpr(is_fake_N: Bools, logit_N: Floats, max_fpr: float) -> float | None:
    """Return the share of fakes that lie above the (k + 1)-th highest real, k of `alarms_allowed`; None with too few reals."""
    falling = np.sort(logit_N[~is_fake_N])[::-1]
    alarms = alarms_allowed(len(falling), max_fpr)
    return None if alarms is None else _share(logit_N[is_fake_N] > falling[alarms])


def sigmoid(logit_N: Floats) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logit)) in float64, in a form that does not overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(logit_N, np.float64) / 2))


@dataclass(frozen=True)
class Reliability:
    """One bin of predicted probabilities per entry; empty bins are not listed."""

    predicted_K: NDArray[np.float64]  # mean probability of fake
    observed_K: NDArray[np.float64]  # share of fakes
    weight_K: NDArray[np.float64]  # share of all images; sums to 1


def reliability(is_fake_N: Bools, logit_N: Floats) -> Reliability:
    """Return the probability of fake (sigmoid of the logit) against the share of fakes in `BINS` bins of equal width.

    Reals and fakes weigh as much as each other, however many there are: half of the images are taken to be fake. A probability on
    an edge belongs to the bin below it (the first bin holds 0), as in Guo et al. 2017 and scikit-learn.
    """
    probability_N, weight_N, bin_N = _weighted(is_fake_N, logit_N)
    weight, fakes, predicted = (
        np.bincount(bin_N, own, BINS) for own in (weight_N, weight_N * is_fake_N, weight_N * probability_N)
    )
    used = weight > 0
    return Reliability(predicted[used] / weight[used], fakes[used] / weight[used], weight[used])


def brier(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the Brier score where half of the images are fake.

    It is half the mean of (probability - label)^2 over the reals plus half that over the fakes; 0 is best, 0.25 what a
    probability of one half for every image gives.
    """
    probability_N, weight_N, _ = _weighted(is_fake_N, logit_N)
    return float(np.sum(weight_N * (probability_N - is_fake_N) ** 2))


def miscalibration(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the part of the Brier score that other probabilities for the same bins would take away, the bias removed.

    Over the bins of `reliability`, the mean of (mean probability - share of fakes)^2. The plain sum is above 0 for a calibrated
    detector, because the share of fakes of a bin has an error of its own. Here the product of an image with itself is left out
    (Bröcker 2012; Kumar et al. 2019): a calibrated detector has 0 on average, and may have less. Bins of a single image then say
    nothing, so that of a detector that is not calibrated few images show too little: 60 % of it at 20 images of a kind, 90 % at
    100 (`tests/evaluation/test_metrics.py`). NaN with fewer than two reals or two fakes.
    """
    probability_N, weight_N, bin_N = _weighted(is_fake_N, logit_N)
    weight_K, square_K, sums = np.bincount(bin_N, weight_N, BINS), np.zeros(BINS), []
    for kind_N in (is_fake_N, ~is_fake_N):
        gap, own, count = (weight_N * (probability_N - is_fake_N))[kind_N], bin_N[kind_N], int(kind_N.sum())
        if count < 2:
            return float("nan")
        sums.append(np.bincount(own, gap, BINS))
        # Pairs of two images alone; n (n - 1) of them stand for the n^2 of the square.
        square_K += (sums[-1] ** 2 - np.bincount(own, gap**2, BINS)) * count / (count - 1)
    square_K += 2 * sums[0] * sums[1]
    used = weight_K > 0
    return float(np.sum(square_K[used] / weight_K[used]))


def rounded(value: Any) -> Any:
    """Return nested dictionaries with every float, numpy's included, rounded to `DIGITS`: what goes into a JSON file."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return round(float(value), DIGITS) if isinstance(value, float | np.floating) else value


def _weighted(is_fake_N: Bools, logit_N: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the probability of fake of every image, its weight where reals and fakes weigh 1/2 each, and its bin."""
    probability_N = sigmoid(logit_N)
    fakes = int(is_fake_N.sum())
    weight_N = np.where(is_fake_N, 0.5 / max(fakes, 1), 0.5 / max(len(is_fake_N) - fakes, 1))
    return probability_N, weight_N, np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability_N)


def _share(hits_N: Bools) -> float:
    return float(np.mean(hits_N)) if len(hits_N) else float("nan")
