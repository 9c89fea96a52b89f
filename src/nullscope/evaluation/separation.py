"""How well features tell real from fake: a linear classifier on them, and a map of them in the plane.

N images, K width of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from nullscope.evaluation.intervals import Z_95
from nullscope.evaluation.metrics import accuracy, auroc, balanced_accuracy
from nullscope.evaluation.seeds import Spread

FOLDS = 5
PERPLEXITY = 30
DRAWN = 500  # images of a map: more of them take longer and hide each other
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Features:
    """The features that the classifier of one run sees of N test images."""

    image_ids: list[str]
    feature_NK: NDArray[np.float32]
    is_fake_N: Bools
    is_seen_N: Bools  # of a subset whose generator was trained on


def separability(feature_NK: Floats, is_fake_N: Bools, pair_N: NDArray[np.integer] | None = None) -> Spread | None:
    """Return the cross-validated AUROC of `linear_classifier`, the mean over `FOLDS` folds.

    ``pair_N``: the pair that each image belongs to. Images of a pair stay in one fold: otherwise a classifier that was trained on
    a real would call the fake beside it real, and do worse than guessing. The 95 % interval covers other images, nothing else
    (Hanley and McNeil 1982). None with fewer than `FOLDS` images of a kind.
    """
    n_fake, n_real = int(is_fake_N.sum()), int((~is_fake_N).sum())
    if min(n_fake, n_real) < FOLDS:
        return None
    kind = StratifiedKFold if pair_N is None else GroupKFold
    folds = kind(FOLDS, shuffle=True, random_state=0)
    areas = cross_val_score(linear_classifier(), feature_NK, is_fake_N, groups=pair_N, scoring="roc_auc", cv=folds)
    area = float(areas.mean())
    half = Z_95 * auroc_error(area, n_fake, n_real)
    return Spread(area, area - half, area + half, 1, "interval")


def linear_classifier() -> Pipeline:
    """Return a fresh logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def auroc_error(area: float, n_fake: int, n_real: int) -> float:
    """Return the standard error of an AUROC of so many images (Hanley and McNeil 1982, equation 1)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)  # two fakes above one real; one fake above two reals
    variance = area * (1 - area) + (n_fake - 1) * (q1 - area**2) + (n_real - 1) * (q2 - area**2)
    return float(np.sqrt(max(0.0, variance) / (n_fake * n_real)))


def tsne(feature_NK: Floats) -> NDArray[np.float32]:
    """Return a map of the features in the plane, (N, 2), by t-SNE (van der Maaten & Hinton 2008).

    Neighbours stay neighbours. Distances, sizes and directions mean nothing.
    """
    if not np.ptp(feature_NK, axis=0).any():
        return np.zeros((len(feature_NK), 2), np.float32)  # a collapsed detector: there is nothing to spread out
    if feature_NK.shape[1] == 1:
        feature_NK = np.hstack([feature_NK, np.zeros_like(feature_NK)])  # the start, two principal axes, needs two
    perplexity = min(PERPLEXITY, max(1, (len(feature_NK) - 1) / 3))
    with threadpool_limits(1, user_api="openmp"):  # a limit of this thread: several maps are made side by side
        return TSNE(perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(feature_NK)


@dataclass(frozen=True)
class FeatureMap:
    """The features of one run, as a map of the first `DRAWN` of N images, M in number, and how well they tell real from fake."""

    images: int  # N
    place_M2: NDArray[np.floating]  # `tsne`
    is_fake_M: Bools
    is_seen_M: Bools
    auroc: Spread | None  # `separability` of all N


def feature_map(features: Features) -> FeatureMap:
    """Return the map of the features of one run."""
    return FeatureMap(
        images=len(features.image_ids),
        place_M2=tsne(features.feature_NK[:DRAWN]),
        is_fake_M=features.is_fake_N[:DRAWN],
        is_seen_M=features.is_seen_N[:DRAWN],
        auroc=separability(features.feature_NK, features.is_fake_N),
    )


@dataclass(frozen=True)
class CaptionsAlone:
    """How well a linear classifier of the captions' features, without the pictures, tells real from fake."""

    n_train: int
    n_test: int
    n_fake: int  # of the test captions
    accuracy: float
    balanced_accuracy: float
    auroc: float


def captions_alone(train_ND: Floats, train_is_fake_N: Bools, test_ND: Floats, test_is_fake_N: Bools) -> CaptionsAlone | None:
    """Train `linear_classifier` on the training captions and test it on the test captions; None where a split lacks a kind."""
    if any(is_fake_N.all() or not is_fake_N.any() for is_fake_N in (train_is_fake_N, test_is_fake_N)):
        return None
    logit_N = linear_classifier().fit(train_ND, train_is_fake_N).decision_function(test_ND)
    numbers = [measure(test_is_fake_N, logit_N) for measure in (accuracy, balanced_accuracy, auroc)]
    return CaptionsAlone(len(train_ND), len(test_ND), int(test_is_fake_N.sum()), *numbers)
