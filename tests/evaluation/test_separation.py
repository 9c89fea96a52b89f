"""Separability, its error, the maps, and captions alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nullscope.evaluation.metrics import auroc
from nullscope.evaluation.separation import FOLDS, auroc_error, captions_alone, separability, tsne


def labelled(n: int, rng: np.random.Generator, gap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of width 8 whose fakes lie ``gap`` deviations apart in one of them, in any order."""
    is_fake = rng.permutation(np.arange(n) % 2 == 0)
    features = rng.normal(size=(n, 8))
    features[:, 3] += gap * is_fake
    return features, is_fake


def test_separability_of_what_separates_and_of_noise():
    rng = np.random.default_rng(0)
    assert separability(*labelled(200, rng, gap=12)).mean == 1
    noise = separability(*labelled(400, rng))
    assert noise.low < 0.5 < noise.high


def test_separability_does_not_depend_on_the_units_of_a_feature():
    features, is_fake = labelled(200, np.random.default_rng(1), gap=1)
    scaled = features * np.array([1, 10, 1000, 0.01, 1, 1, 1, 1]) + 5
    assert separability(scaled, is_fake).mean == pytest.approx(separability(features, is_fake).mean)


def test_separability_approaches_that_of_the_best_classifier():
    """Two normal distributions apart in one feature: nothing tells them apart better than that feature."""
    features, is_fake = labelled(2000, np.random.default_rng(2), gap=1.5)
    found, best = separability(features, is_fake), auroc(is_fake, features[:, 3])
    assert best - 0.01 < found.mean < best + 0.005


def test_twins_with_opposite_labels_are_guessed_only_if_they_stay_together():
    """A classifier that was trained on a picture's twin of the other label errs on purpose, so to say."""
    rng = np.random.default_rng(3)
    half = rng.normal(size=(60, 40))
    twins, is_fake, pair = np.tile(half, (2, 1)), np.repeat([False, True], 60), np.tile(np.arange(60), 2)
    assert separability(twins, is_fake).mean < 0.35
    assert separability(twins, is_fake, pair).mean == pytest.approx(0.5, abs=0.05)


def test_too_few_images_of_a_kind_are_no_number():
    features, _ = labelled(40, np.random.default_rng(4))
    assert separability(features, np.arange(40) < FOLDS - 1) is None
    assert separability(features, np.arange(40) < FOLDS) is not None


def test_the_error_is_that_of_exponential_scores():
    """Hanley and McNeil's formula is exact for scores from two exponential distributions: an AUROC of r / (1 + r)."""
    rng, (n_fake, n_real, ratio) = np.random.default_rng(5), (30, 50, 4)
    areas = []
    for _ in range(3000):
        fake, real = rng.exponential(ratio, n_fake), rng.exponential(1, n_real)
        areas.append((fake[:, None] > real).mean())
    assert np.std(areas) == pytest.approx(auroc_error(ratio / (1 + ratio), n_fake, n_real), rel=0.06)
    assert auroc_error(1.0, 10, 10) == 0


def test_a_map_keeps_groups_apart_and_is_the_same_again():
    rng = np.random.default_rng(6)
    group = np.repeat([0, 1], 50)
    features = (rng.normal(size=(100, 10)) + 20 * group[:, None]).astype(np.float32)
    place = tsne(features)
    assert np.array_equal(place, tsne(features))
    nearest = np.argsort(((place[:, None] - place) ** 2).sum(-1), axis=1)[:, 1]
    assert (group[nearest] == group).all()


@pytest.mark.parametrize("images", [2, 3, 40])
def test_a_map_of_few_or_collapsed_features_is_a_map(images):
    """A detector that maps every image to one point has diverged; the report must still show it."""
    assert tsne(np.ones((images, 4), np.float32)).shape == (images, 2)
    assert np.isfinite(tsne(np.eye(images, 4, dtype=np.float32))).all()
    assert np.isfinite(tsne(np.arange(images, dtype=np.float32)[:, None])).all()


def test_captions_alone_is_a_classifier_trained_on_the_one_split_and_judged_on_the_other():
    rng = np.random.default_rng(7)
    (train, train_fake), (test, test_fake) = labelled(300, rng, gap=1), labelled(101, rng, gap=1)
    found = captions_alone(train, train_fake, test, test_fake)
    mean, deviation = train.mean(0), train.std(0)
    plain = LogisticRegression(max_iter=2000).fit((train - mean) / deviation, train_fake)
    called = plain.predict((test - mean) / deviation)
    assert (found.n_train, found.n_test, found.n_fake) == (300, 101, test_fake.sum())
    assert found.accuracy == pytest.approx(np.mean(called == test_fake))
    assert found.balanced_accuracy == pytest.approx((np.mean(called[test_fake]) + np.mean(~called[~test_fake])) / 2)
    assert 0.65 < found.auroc < 0.9


def test_captions_of_one_kind_teach_nothing():
    features, is_fake = labelled(20, np.random.default_rng(8))
    assert captions_alone(features, np.ones(20, bool), features, is_fake) is None
    assert captions_alone(features, is_fake, features, np.zeros(20, bool)) is None
