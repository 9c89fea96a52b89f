"""Metrics: known answers, scikit-learn and plain loops as references, and what is expected of few images."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss, roc_auc_score

from nullscope.evaluation import metrics


@pytest.fixture
def drawn():
    """200 images whose logits overlap and tie, unbalanced: (is_fake_N, logit_N)."""
    rng = np.random.default_rng(7)
    is_fake = rng.random(200) < 0.3
    return is_fake, np.round(rng.normal(size=200) + is_fake, 1)


# Rates at the threshold


def test_a_logit_of_zero_is_real():
    is_fake, logit = np.array([False, True, True]), np.array([0.0, 0.0, 1e-9])
    assert metrics.real_accuracy(is_fake, logit) == 1
    assert metrics.fake_accuracy(is_fake, logit) == 0.5
    assert metrics.accuracy(is_fake, logit) == pytest.approx(2 / 3)
    assert metrics.balanced_accuracy(is_fake, logit) == 0.75


def test_rates_equal_a_loop_and_scikit_learn(drawn):
    is_fake, logit = drawn
    hits = {False: [], True: []}
    for fake, value in zip(is_fake, logit, strict=True):
        hits[bool(fake)].append((value > 0) == fake)
    assert metrics.real_accuracy(*drawn) == pytest.approx(sum(hits[False]) / len(hits[False]))
    assert metrics.fake_accuracy(*drawn) == pytest.approx(sum(hits[True]) / len(hits[True]))
    assert metrics.balanced_accuracy(*drawn) == pytest.approx(balanced_accuracy_score(is_fake, logit > 0))


# Rankings


def test_ranking_metrics_of_a_hand_made_case():
    is_fake, logit = np.array([True, False, True, False]), np.array([4.0, 3.0, 2.0, 1.0])
    assert metrics.average_precision(is_fake, logit) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.auroc(is_fake, logit) == 0.75
    assert metrics.tpr_at_fpr(is_fake, logit, 0.05) is None
    assert metrics.tpr_at_fpr(is_fake, logit, 0.34) == 0.5
    assert metrics.tpr_at_fpr(is_fake, logit, 0.67) == 1


def test_auroc_counts_ties_half(drawn):
    is_fake, logit = drawn
    pairs = [(fake > real) + (fake == real) / 2 for fake in logit[is_fake] for real in logit[~is_fake]]
    assert metrics.auroc(*drawn) == pytest.approx(sum(pairs) / len(pairs))
    assert metrics.auroc(*drawn) == roc_auc_score(is_fake, logit)


def test_average_precision_takes_tied_scores_at_once(drawn):
    is_fake, logit = drawn
    total, found, recall = 0.0, 0, 0.0
    for threshold in sorted(set(logit), reverse=True):
        called = logit >= threshold
        found = int((called & is_fake).sum())
        total += found / called.sum() * (found / is_fake.sum() - recall)
        recall = found / is_fake.sum()
    assert metrics.average_precision(*drawn) == pytest.approx(total)
    assert metrics.average_precision(*drawn) == average_precision_score(is_fake, logit)


@pytest.mark.parametrize("monotone", [lambda x: 3 * x - 5, np.tanh, lambda x: x**3, metrics.sigmoid])
def test_rankings_do_not_move_under_monotone_maps(drawn, monotone):
    is_fake, logit = drawn
    for metric in (metrics.average_precision, metrics.auroc):
        assert metric(is_fake, monotone(logit)) == pytest.approx(metric(is_fake, logit), abs=1e-12)


def test_rankings_are_1_where_the_classes_are_apart():
    is_fake, logit = np.array([False, False, True]), np.array([-9.0, -8.0, -7.0])
    assert metrics.average_precision(is_fake, logit) == metrics.auroc(is_fake, logit) == 1
    assert metrics.tpr_at_fpr(is_fake, logit, 0.34) == 1


@pytest.mark.parametrize("max_fpr", [0.01, 0.05, 0.3])
def test_tpr_at_fpr_equals_a_loop_over_thresholds(drawn, max_fpr):
    is_fake, logit = drawn
    reals, best = int((~is_fake).sum()), 0.0
    for threshold in [*logit, math.inf]:
        alarms = int((logit[~is_fake] >= threshold).sum())
        if Fraction(alarms + 1, reals + 1) <= Fraction(str(max_fpr)):
            best = max(best, (logit[is_fake] >= threshold).mean())
    assert metrics.tpr_at_fpr(is_fake, logit, max_fpr) == pytest.approx(best)


def test_how_many_reals_a_false_positive_rate_needs():
    assert [metrics.alarms_allowed(n, 0.01) for n in (0, 98, 99, 198, 199, 299)] == [None, None, 0, 0, 1, 2]
    assert [metrics.alarms_allowed(n, 0.05) for n in (18, 19, 39)] == [None, 0, 1]
    assert metrics.tpr_at_fpr(np.repeat([False, True], [98, 5]), np.arange(103.0), 0.01) is None


@pytest.mark.parametrize(("reals", "max_fpr"), [(99, 0.01), (100, 0.05), (300, 0.05)])
def test_further_reals_are_called_fake_as_often_as_promised(reals, max_fpr):
    """Of 4,000 worlds, the threshold of each held against all reals there are: not k / n, as the reals that set it would say."""
    alarms = metrics.alarms_allowed(reals, max_fpr)
    uniform = np.sort(np.random.default_rng(0).random((4000, reals)))[:, ::-1]
    true_rate = 1 - uniform[:, alarms]
    assert true_rate.mean() == pytest.approx((alarms + 1) / (reals + 1), rel=0.05)
    assert true_rate.mean() <= 1.05 * max_fpr


# Calibration and intervals


def test_sigmoid_neither_overflows_nor_warns():
    with np.errstate(all="raise"):
        assert metrics.sigmoid(np.array([-1e5, 0.0, 1e5], np.float32)).tolist() == [0, 0.5, 1]


def test_brier_weighs_reals_and_fakes_alike(drawn):
    is_fake, logit = drawn
    gap = (1 / (1 + np.exp(-logit)) - is_fake) ** 2
    assert metrics.brier(*drawn) == pytest.approx((gap[is_fake].mean() + gap[~is_fake].mean()) / 2)
    assert metrics.brier(is_fake, np.zeros(len(logit))) == pytest.approx(0.25)
    balanced = np.repeat([False, True], 50)
    probability = np.linspace(0.01, 0.99, 100)
    expected = brier_score_loss(balanced, probability)
    assert metrics.brier(balanced, scipy.special.logit(probability)) == pytest.approx(expected)


def test_reliability_of_as_many_reals_as_fakes_equals_scikit_learn():
    rng = np.random.default_rng(3)
    is_fake = np.repeat([False, True], 100)
    logit = rng.normal(size=200) + is_fake
    observed, predicted = calibration_curve(is_fake, metrics.sigmoid(logit), n_bins=15)
    bins = metrics.reliability(is_fake, logit)
    np.testing.assert_allclose(bins.observed_K, observed)
    np.testing.assert_allclose(bins.predicted_K, predicted)
    assert bins.weight_K.sum() == pytest.approx(1)


def test_reliability_does_not_move_with_the_share_of_fakes(drawn):
    is_fake, logit = drawn
    twice = np.concatenate([is_fake, is_fake[is_fake]]), np.concatenate([logit, logit[is_fake]])
    once, more = metrics.reliability(*drawn), metrics.reliability(*twice)
    np.testing.assert_allclose(once.observed_K, more.observed_K)
    np.testing.assert_allclose(once.weight_K, more.weight_K)


def test_a_probability_on_an_edge_is_in_the_bin_scikit_learn_says(monkeypatch):
    probability = np.linspace(0, 1, 16)
    monkeypatch.setattr(metrics, "sigmoid", lambda logit_N: logit_N)
    is_fake = np.arange(16) % 2 == 0
    observed, _ = calibration_curve(is_fake, probability, n_bins=15)
    np.testing.assert_allclose(metrics.reliability(is_fake, probability).observed_K, observed)


def calibrated(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return reals and fakes whose logit is the log of how much likelier the image is a fake: (is_fake, logit)."""
    rng, is_fake = np.random.default_rng(seed), np.repeat([False, True], count)
    return is_fake, rng.normal(np.where(is_fake, 1.0, -1.0), np.sqrt(2))


@pytest.mark.parametrize("count", [15, 100])
def test_miscalibration_of_a_calibrated_detector_is_none_however_few_the_images(count):
    """The mean over 2,000 worlds; the plain sum of squares would be 0.03 at 15 images of a kind."""
    found = [metrics.miscalibration(*calibrated(seed, count)) for seed in range(2000)]
    assert np.mean(found) == pytest.approx(0, abs=3 * np.std(found) / np.sqrt(2000) + 2e-4)


@pytest.mark.parametrize(("count", "shown"), [(20, 0.6), (100, 0.9), (400, 0.97)])
def test_few_images_show_a_part_of_the_miscalibration_and_never_more(count, shown):
    """Logits that are twice too large, against 100,000 images of a kind."""
    is_fake, logit = calibrated(0, 100_000)
    truth = metrics.miscalibration(is_fake, 2 * logit)
    found = [metrics.miscalibration(own, 2 * logits) for own, logits in (calibrated(seed, count) for seed in range(1000))]
    assert truth > 0.01
    assert np.mean(found) / truth == pytest.approx(shown, abs=0.06)


def test_miscalibration_of_known_cases():
    is_fake = np.array([False, False, True, True])
    assert metrics.miscalibration(is_fake, np.array([-50.0, -50, 50, 50])) == pytest.approx(0)
    assert metrics.miscalibration(is_fake, np.array([50.0, 50, -50, -50])) == pytest.approx(1)
    assert math.isnan(metrics.miscalibration(is_fake[1:], np.zeros(3)))
