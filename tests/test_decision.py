"""Thresholds that keep what they promise, on worlds that are drawn again and again; answers that do not contradict each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.linear_model import LogisticRegression

from nullscope.decision import RATES, Decision, TooFewError, decide, promise, temperature

WORLDS = 2000


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("images", [99, 300, 1000])
def test_the_interval_holds_the_rate_on_other_images(rate, images):
    """Logits of a known distribution: the true rate above a threshold is known. 93 to 97 of 100 worlds, as the issue asks."""
    draws = np.random.default_rng(images)
    found = [promise(draws.normal(size=images), rate) for _ in range(WORLDS)]
    true = norm.sf([own.threshold for own in found])
    held = np.mean([own.low <= at <= own.high for own, at in zip(found, true, strict=True)])
    assert 0.93 <= held <= 0.97
    assert true.mean() <= rate + 3 * true.std() / math.sqrt(WORLDS), "on average no more than was promised"


def test_the_interval_is_that_of_an_order_statistic():
    """Independent reference: the rate above the (k + 1)-th highest of n is below p where at most k of n exceed the p-quantile."""
    own = promise(np.arange(200.0), 0.05)  # (k + 1) / 201 <= 0.05: k = 9, the tenth from above
    assert own.threshold == 190.0 and own.images == 200
    assert binom.cdf(9, 200, own.low) == pytest.approx(0.975) and binom.cdf(9, 200, own.high) == pytest.approx(0.025)


@pytest.mark.parametrize(("images", "rate"), [(18, 0.05), (98, 0.01), (0, 0.5)])
def test_too_few_images_promise_nothing(images, rate):
    with pytest.raises(TooFewError, match=f"^{images} images cannot promise a rate .* at least {math.ceil(1 / rate) - 1} are"):
        promise(np.zeros(images), rate)
    assert promise(np.arange(images + 1.0), rate).threshold == images, "one more, and the highest is the threshold"


@pytest.mark.parametrize("rate", [0, 1, -0.1, 5, float("nan")])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        promise(np.zeros(1000), rate)


def test_equal_logits_make_fewer_alarms_not_more():
    logits = np.repeat([0.0, 1.0], 50)
    own = promise(logits, 0.05)
    assert (logits > own.threshold).sum() == 0


def test_answers_follow_from_the_band_and_never_turn_back():
    """More and more generated: real, then not sure, then generated; at the band's ends not sure."""
    draws = np.random.default_rng(0)
    own = decide(draws.normal(-1, 1, 400), draws.normal(1, 1, 400), 0.05)
    low, high = own.band
    assert high == own.threshold and low < high
    answers = [own.answer(logit) for logit in np.linspace(-5, 5, 1001)]
    assert answers == sorted(answers, key=["real", "not sure", "generated"].index) and len(set(answers)) == 3
    assert [own.answer(low), own.answer(high)] == ["not sure", "not sure"]


def test_the_band_leaves_out_few_of_either_kind():
    draws = np.random.default_rng(1)
    real, fake = draws.normal(-1, 1, 500), draws.normal(1, 1, 500)
    own = decide(real, fake, 0.05)
    assert np.mean([own.answer(at) == "generated" for at in real]) <= 0.05
    assert np.mean([own.answer(at) == "real" for at in fake]) <= 0.05


def test_between_kinds_that_lie_apart_nobody_is_sure():
    own = decide(np.linspace(-3, -2, 100), np.linspace(2, 3, 100), 0.05)
    assert own.band[0] < -2 and own.band[1] > 2
    assert [own.answer(at) for at in (-2.5, 0, 2.5)] == ["real", "not sure", "generated"]


def test_two_answers_where_no_band_is_wanted_or_fakes_are_too_few():
    real = np.linspace(-3, 0, 100)
    for own in (decide(real, np.linspace(0, 3, 100), 0.05, band=False), decide(real, [1.0], 0.05)):
        assert own.band is None
        assert [own.answer(own.threshold + step) for step in (-1e-9, 0, 1e-9)] == ["real", "real", "generated"]
    assert [Decision().answer(logit) for logit in (-0.1, 0.0, 0.1)] == ["real", "real", "generated"], "the threshold of training"


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_a_logistic_regression(factor):
    """Calibrated logits times a factor. scikit-learn fits the same number: one weight, no constant, no penalty."""
    draws = np.random.default_rng(2)
    logit_N = draws.normal(0, 2, 6000)
    is_fake_N = draws.random(6000) < 1 / (1 + np.exp(-logit_N))
    real, fake = factor * logit_N[~is_fake_N], factor * logit_N[is_fake_N]
    own = temperature(real, fake)
    weights = np.concatenate([np.full(len(real), 1 / len(real)), np.full(len(fake), 1 / len(fake))]) * 3000
    labels = np.repeat([0, 1], [len(real), len(fake)])
    regression = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-8)
    regression.fit(np.concatenate([real, fake])[:, None], labels, sample_weight=weights)
    assert own.value == pytest.approx(1 / regression.coef_[0, 0], rel=1e-3) == pytest.approx(factor, rel=0.1)
    if factor != 1:
        assert own.helps and own.log_loss[1] < own.log_loss[0] and own.brier[1] < own.brier[0]
    else:
        assert own.log_loss[1] == pytest.approx(own.log_loss[0], abs=1e-3), "nothing to gain"


def test_a_decision_has_probabilities_where_it_can():
    """Of calibrated logits times three: divided by three again. Where no temperature helps it is the score."""
    draws = np.random.default_rng(3)
    logit_N = draws.normal(0, 2, 6000)
    is_fake_N = draws.random(6000) < 1 / (1 + np.exp(-logit_N))
    own = decide(3 * logit_N[~is_fake_N], 3 * logit_N[is_fake_N])
    assert own.probability(3.0) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.02) and own.probability(0.0) == 0.5
    assert decide(np.linspace(-3, 0, 100), [1.0]).probability(1.0) is None is Decision().probability(1.0)


def test_a_temperature_needs_images():
    assert temperature([0.0] * 4, [1.0] * 100) is None
