"""The interval over generators: a plain loop, and how often it holds what other generators give."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from nullscope.evaluation.generators import forecast
from nullscope.evaluation.intervals import on_logit_scale


def moved(values: np.ndarray, noise: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Return resamples of every generator: its number, moved by its images."""
    rng = np.random.default_rng(seed)
    return {f"g{at:02}": value + noise * rng.normal(size=1000) for at, value in enumerate(values)}


def test_two_generators_are_no_sample():
    assert forecast(0.7, moved(np.array([0.6, 0.8]), 0.01)) is None


def test_it_is_students_interval_where_images_say_nothing():
    """The error of the mean of G numbers, from G - 1 degrees of freedom, within what 1,000 draws resolve."""
    values = np.array([0.6, 0.75, 0.9, 0.65, 0.7, 0.8])
    error = values.std(ddof=1) / np.sqrt(6)
    expected = on_logit_scale(values.mean(), error, scipy.stats.t.ppf(0.975, 5))
    assert forecast(values.mean(), moved(values, 0.0)) == pytest.approx(expected, abs=0.01)


def test_generators_that_are_alike_leave_the_images():
    values = np.full(8, 0.8)
    low, high = forecast(0.8, moved(values, 0.02))
    images = np.mean(list(moved(values, 0.02).values()), axis=0).std()
    assert (high - low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, 7) * images * np.sqrt(2 * 8 / 7), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8])
def test_it_holds_the_mean_of_all_generators_in_about_95_of_100_worlds(count):
    """600 worlds whose generators differ as normal numbers of the logit do; two standard errors are 1.8 points."""
    rng = np.random.default_rng(count)
    truth = scipy.special.expit(np.random.default_rng(0).normal(1.5, 0.8, 1_000_000)).mean()
    held = 0
    for world in range(600):
        values = scipy.special.expit(rng.normal(1.5, 0.8, count))
        low, high = forecast(values.mean(), moved(values, 0.01, world))
        held += low <= truth <= high
    assert 0.92 <= held / 600 <= 0.985
