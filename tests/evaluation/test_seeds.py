"""Numbers over seeds, against scipy's own intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nullscope.evaluation.seeds import Spread, estimate, is_outside, is_significant, over_seeds, over_seeds_and_images
from nullscope.evaluation.summary import by_detector, difference, spread, subsets_of

rates = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=12)


@given(rates)
def test_the_interval_is_students(values):
    found = estimate(values)
    scale = np.std(values, ddof=1) / np.sqrt(len(values))
    low, high = stats.t(len(values) - 1, np.mean(values), scale).interval(0.95) if scale else (np.mean(values),) * 2
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert (found.mean, found.seeds, found.span) == (pytest.approx(np.mean(values)), len(values), "interval")
    assert found.half == pytest.approx((found.high - found.low) / 2)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [estimate(values) for values in rng.normal(0.7, 0.05, (3000, 5))]
    covered = np.mean([own.low <= 0.7 <= own.high for own in intervals])
    assert abs(covered - 0.95) < 0.015  # about four standard errors


@given(rates, st.integers(0, 2**32))
def test_the_difference_is_that_of_a_paired_t_test(values, seed):
    first = values + np.random.default_rng(seed).normal(0, 0.1, len(values))
    found = difference([{"x": value} for value in values], [{"x": value} for value in first], "x")
    reference = stats.ttest_rel(values, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-6)


def test_the_pairing_takes_out_what_the_seeds_share():
    luck = np.random.default_rng(1).normal(0.7, 0.1, 5)
    runs, first = [{"x": value + 0.01} for value in luck], [{"x": value} for value in luck]
    assert spread(runs, "x").half > 0.05
    assert difference(runs, first, "x").half == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("values", "span"), [([0.5], "none"), ([0.5, 0.7], "range"), ([0.5, 0.7, 0.6], "interval")])
def test_what_is_shown_depends_on_the_number_of_seeds(values, span):
    assert over_seeds(values).span == span
    assert estimate(values).span == (span if span == "interval" else "none")


def test_of_two_seeds_the_lower_and_the_higher():
    assert (over_seeds([0.7, 0.5]).low, over_seeds([0.7, 0.5]).high) == (0.5, 0.7)


def with_images(values: list[float], below: float, above: float) -> list[dict[str, float]]:
    return [{"x": value, "x_low": value - below, "x_high": value + above} for value in values]


def test_seeds_and_images_are_in_one_interval():
    """The distances to each end are added as the sides of a right angle."""
    seeds = estimate([0.5, 0.6, 0.7])
    found = spread(with_images([0.5, 0.6, 0.7], 0.1, 0.05), "x")
    assert (found.mean, found.span) == (pytest.approx(0.6), "interval")
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx(
        (np.hypot(0.1, seeds.half), np.hypot(0.05, seeds.half))
    )
    alone = spread(with_images([0.5], 0.1, 0.05), "x")
    assert (alone.low, alone.high) == pytest.approx((0.4, 0.55))
    assert spread(with_images([0.5, 0.7], 0.1, 0.05), "x").half == pytest.approx(0.075), "two seeds: that of the images"
    assert spread(with_images([0.95, 0.99, 0.97], 0.02, 0.1), "x").high == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed_share", [0.0, 0.5, 1.0])
def test_the_interval_over_both_holds_the_truth(seed_share):
    """3 seeds; what the images do is common to them. Of 4,000 worlds, 94 to 98 in 100."""
    rng = np.random.default_rng(int(10 * seed_share))
    held = 0
    for _ in range(4000):
        images = 0.02 * (1 - seed_share) * rng.normal()
        values = 0.6 + images + 0.02 * seed_share * rng.normal(size=3)
        half = 1.96 * 0.02 * (1 - seed_share)
        own = over_seeds_and_images([Spread(value, value - half, value + half, 1, "interval") for value in values])
        held += own.low <= 0.6 <= own.high
    assert 0.94 <= held / 4000 <= 0.985


def test_only_what_was_tested_is_significant():
    assert is_significant(Spread(0.1, 0.05, 0.15, 3, "interval", 0.049))
    assert not is_significant(Spread(0.1, 0.05, 0.15, 3, "interval", 0.05))
    assert not is_significant(Spread(0.1, 0.05, 0.15, 1, "interval")) and not is_significant(0.1)


def test_a_number_that_is_not_defined_is_none():
    runs = [{"x": 0.5}, {}]
    assert spread(runs, "y") is None and difference(runs, runs, "y") is None
    assert spread(runs, "x").seeds == difference(runs, runs, "x").seeds == 1


def test_a_single_run_is_compared_with_every_seed():
    """Released weights have one run: the spread of the difference is that of the other detector's seeds."""
    seeds, single = [{"x": value} for value in (0.5, 0.6, 0.4)], [{"x": 0.9}]
    less = difference(single, seeds, "x")
    assert (less.mean, less.seeds, less.span) == (pytest.approx(0.4), 3, "interval")
    assert difference(seeds, single, "x").mean == pytest.approx(-less.mean)
    assert less.half == pytest.approx(spread(seeds, "x").half)
    assert len(seeds) == 3 and len(single) == 1, "the lists stay as they are"


def test_runs_are_grouped_in_the_order_given():
    assert by_detector({"b-0": 1, "a_b-1-0": 2, "b-1": 3, "b_new": 4}) == {"b": [1, 3], "a_b-1": [2], "b_new": [4]}


@pytest.mark.parametrize(
    ("low", "high", "outside"), [(0.56, 0.7, True), (0.3, 0.44, True), (0.54, 0.7, False), (0.3, 0.46, False), (0.2, 0.9, False)]
)
def test_an_interval_is_outside_of_limits_only_if_it_has_nothing_in_common_with_them(low, high, outside):
    assert is_outside(Spread((low + high) / 2, low, high, 3, "interval"), (0.45, 0.55)) is outside
    assert not is_outside(Spread((low + high) / 2, low, high, 2, "range"), (0.45, 0.55))


def test_seen_subsets_come_first_and_those_without_fakes_not_at_all():
    rows = {name: {"n_fake": 5, "seen": name == "z"} for name in ("b", "a", "z")} | {"camera": {"n_fake": 0}}
    assert list(subsets_of({"x-0": {"subsets": rows}}).items()) == [("z", True), ("a", False), ("b", False)]
