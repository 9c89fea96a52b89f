"""Intervals of rates: SciPy, a published example, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nullscope.evaluation.intervals import newcombe, on_logit_scale, wilson


@given(count=st.integers(1, 10_000), part=st.floats(0, 1))
def test_wilson_equals_scipy(count, part):
    hits = round(part * count)
    low, high = wilson(hits / count, count)
    expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
    assert 0 <= low <= hits / count <= high <= 1


def test_wilson_of_no_trial_says_nothing():
    assert wilson(0.0, 0) == (0, 1)


def test_newcombe_of_the_published_example():
    """56 of 70 less 48 of 80 is 0.2, from 0.0524 to 0.3339 (Newcombe 1998, method 10); here as half a sum with 32 of 80."""
    low, high = newcombe([56 / 70, 32 / 80], [70, 80], [0.5, 0.5])
    assert (2 * low - 1, 2 * high - 1) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_newcombe_of_a_rate_that_is_all_right_and_one_that_is_all_wrong():
    """299 of 300 reals and 0 of 120 fakes: 71.2 % of the images are called right, and nobody knows that to 8 points."""
    shares = np.array([300, 120]) / 420
    low, high = newcombe([299 / 300, 0], [300, 120], shares)
    assert pytest.approx(299 / 420, abs=1e-3) == 0.712
    assert high - low < 0.6 * np.subtract(*wilson(299 / 420, 420)[::-1])
    assert low < 299 / 420 < high


@given(rates=st.tuples(st.floats(0, 1), st.floats(0, 1)), counts=st.tuples(st.integers(1, 500), st.integers(1, 500)))
def test_newcombe_holds_its_own_number(rates, counts):
    low, high = newcombe(rates, counts, [0.5, 0.5])
    assert 0 <= low <= np.mean(rates) <= high <= 1


@given(value=st.floats(0.001, 0.999), error=st.floats(0, 0.5))
def test_on_logit_scale_is_symmetric_there_and_stays_in_range(value, error):
    low, high = on_logit_scale(value, error)
    assert 0 <= low <= value <= high <= 1
    mirrored = on_logit_scale(1 - value, error)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-9)


def test_on_logit_scale_of_a_small_error_is_the_plain_interval():
    assert on_logit_scale(0.7, 1e-4) == pytest.approx((0.7 - 1.96e-4, 0.7 + 1.96e-4), abs=1e-7)
    assert on_logit_scale(1.0, 0.0) == (1.0, 1.0)


def test_wilson_holds_the_truth_in_95_of_100_tests():
    """Exactly: over every outcome of n images, weighted by its chance."""
    hits = {}
    for n in (120, 300, 1000):
        ends = np.array([wilson(k / n, n) for k in range(n + 1)])
        for rate in (0.03, 0.3, 0.5, 0.9):
            held = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
            hits[n, rate] = float(scipy.stats.binom.pmf(np.arange(n + 1), n, rate)[held].sum())
    assert min(hits.values()) > 0.92
    assert np.mean(list(hits.values())) == pytest.approx(0.95, abs=0.01)
