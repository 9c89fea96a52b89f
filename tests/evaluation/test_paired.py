"""Comparisons of two detectors: against SciPy, plain loops and a hand, and how often they err where nothing differs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nullscope.core.contracts import CLEAN, SCORES
from nullscope.evaluation.metrics import auroc
from nullscope.evaluation.paired import Difference, compare, delong, holm, max_t, mcnemar
from nullscope.evaluation.protocol import evaluate, evaluate_with_resamples
from nullscope.evaluation.resampling import RESAMPLES, Strata, resample, resample_table

NONE_SEEN: frozenset[str] = frozenset()


def scores(logits: dict[tuple[str, int], np.ndarray]) -> pa.Table:
    """Return the scores of one detector, by (subset, label)."""
    flat = [(subset, label, float(logit)) for (subset, label), own in logits.items() for logit in own]
    subset, label, logit = map(list, zip(*flat, strict=True))
    ids, split, degradation = [str(i) for i in range(len(flat))], ["test"] * len(flat), [CLEAN] * len(flat)
    return pa.table([ids, split, subset, label, degradation, logit], schema=SCORES)


def detector(seed: int, skill: float, noise: float = 0.5) -> pa.Table:
    """Return the scores of 80 reals and two subsets of 60 fakes: what the images are like is the same for every detector."""
    images, own = np.random.default_rng(0), np.random.default_rng(seed)
    strata = {("camera", 0): (80, -1.0), ("x", 1): (60, 1.0), ("y", 1): (60, 0.2)}
    return scores({key: shift * skill + images.normal(size=n) + noise * own.normal(size=n) for key, (n, shift) in strata.items()})


def resamples(table: pa.Table) -> pa.Table:
    return evaluate_with_resamples(table, NONE_SEEN)[1]


def hand_made(values: list[float], observed: float, images: float = 1.0) -> pa.Table:
    """Return a table whose mean ``ap`` is known; ``images`` is what tells one test set from another."""
    strata = Strata({"a": np.zeros(1)}, {"a": np.zeros(int(images))}, {"a": ("a",)})
    return resample_table({"ap": observed}, {"ap": np.resize(values, RESAMPLES)}, strata)


# McNemar


@given(counts=st.tuples(*[st.integers(0, 60)] * 4))
def test_mcnemar_equals_a_binomial_test_of_the_images_on_which_they_differ(counts):
    _, only_a, only_b, _ = counts  # both are right, one is, neither
    correct_a = np.repeat([True, True, False, False], counts)
    correct_b = np.repeat([True, False, True, False], counts)
    found = mcnemar(correct_a, correct_b)
    assert (found.only_first, found.only_second) == (only_a, only_b)
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert found.p == pytest.approx(expected, abs=1e-12)
    assert mcnemar(correct_b, correct_a).p == found.p


def test_mcnemar_of_a_hand_made_case():
    found = mcnemar(np.array([True] * 6 + [False] * 2), np.array([True] + [False] * 7))
    assert (found.only_first, found.only_second, found.p) == (5, 0, 2 / 32)
    with pytest.raises(ValueError, match=r"found arrays of \[2, 3\] images"):
        mcnemar(np.ones(2, bool), np.ones(3, bool))


# DeLong


def slow_delong(is_fake, logit_a, logit_b) -> tuple[float, float]:
    """Return the difference and its p-value from all pairs of a fake and a real: DeLong et al. 1988, equations 4 to 6."""

    def pairs(logit):
        fake, real = logit[is_fake], logit[~is_fake]
        return np.array([[float(x > y) + float(x == y) / 2 for y in real] for x in fake])

    both = [pairs(np.asarray(logit, np.float64)) for logit in (logit_a, logit_b)]
    by_fake, by_real = [m.mean(axis=1) for m in both], [m.mean(axis=0) for m in both]
    covariance = np.cov(by_fake) / len(by_fake[0]) + np.cov(by_real) / len(by_real[0])
    value = both[0].mean() - both[1].mean()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return value, 2 * scipy.stats.norm.sf(abs(value) / np.sqrt(variance))


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_delong_equals_a_loop_over_all_pairs(digits):
    rng = np.random.default_rng(digits)
    is_fake = rng.random(90) < 0.4
    common = rng.normal(size=90) + is_fake
    logit_a, logit_b = np.round(common + rng.normal(size=90), digits), np.round(common + 0.5 * rng.normal(size=90), digits)
    found = delong(is_fake, logit_a, logit_b)
    value, p = slow_delong(is_fake, logit_a, logit_b)
    assert (found.value, found.p) == (pytest.approx(value, abs=1e-12), pytest.approx(p, rel=1e-9))
    assert found.value == pytest.approx(auroc(is_fake, logit_a) - auroc(is_fake, logit_b), abs=1e-12)
    assert (found.low + found.high) / 2 == pytest.approx(found.value)
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
    other = delong(is_fake, logit_b, logit_a)
    assert (other.value, other.p) == (pytest.approx(-found.value), pytest.approx(found.p))


def test_delong_of_rankings_that_do_not_differ_or_do_not_vary():
    is_fake, logit = np.array([False, False, True, True]), np.array([0.0, 2.0, 1.0, 3.0])
    assert delong(is_fake, logit, 5 * logit - 1) == Difference(0, 0, 0, 1)
    perfect = np.array([0.0, 1.0, 2.0, 3.0])
    assert delong(is_fake, perfect, -perfect) == Difference(1, 1, 1, 0)


def test_delong_needs_two_of_each():
    with pytest.raises(ValueError, match="two reals and two fakes at least, found 1 and 2"):
        delong(np.array([False, True, True]), np.zeros(3), np.zeros(3))


def test_delong_errs_in_5_of_100_tests_where_nothing_differs():
    """500 pairs of detectors of one skill, their errors half common; two standard errors of a count of 25 are 10."""
    rng, is_fake = np.random.default_rng(3), np.repeat([False, True], [100, 60])
    p = []
    for _ in range(500):
        common = is_fake + rng.normal(size=160)
        p.append(delong(is_fake, common + rng.normal(size=160), common + rng.normal(size=160)).p)
    assert 14 <= np.sum(np.array(p) < 0.05) <= 37
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)


# Means over subsets: images alone


BOTH = frozenset({"a", "b"})


def of_two(a: list[pa.Table], b: list[pa.Table], key: str, fixed: frozenset[str] = BOTH) -> Difference:
    return compare({"a": a, "b": b}, [("a", "b", key)], fixed=fixed)[0]


def half_of(found: Difference) -> float:
    return (found.high - found.low) / 2


def test_a_detector_does_not_differ_from_itself():
    table = resamples(detector(1, 1.0))
    for key in table.column_names[1:]:
        assert of_two([table], [table], key) == Difference(0, 0, 0, 1)


def test_pairing_takes_out_what_the_images_have_in_common():
    a, b = (resamples(detector(seed, skill)) for seed, skill in ((1, 1.2), (2, 1.0)))
    for key in ("mean_real_fakes", "ap", "auroc"):
        paired = of_two([a], [b], key)
        shuffled = np.random.default_rng(0).permutation(b[key].to_numpy()[1:])
        assert paired.high - paired.low < 0.8 * 2 * 1.96 * (a[key].to_numpy()[1:] - shuffled).std(), key


def test_the_value_is_that_of_the_test_set():
    a, b = detector(1, 1.2), detector(2, 1.0)
    found = of_two([resamples(a)], [resamples(b)], "auroc")
    assert found.value == pytest.approx(evaluate(a, NONE_SEEN)["auroc"] - evaluate(b, NONE_SEEN)["auroc"], abs=2e-6)
    other = of_two([resamples(b)], [resamples(a)], "auroc")
    assert (other.value, other.low, other.high, other.p) == pytest.approx((-found.value, -found.high, -found.low, found.p))


def test_p_and_interval_of_hand_made_resamples():
    """Deviations of 1 to 10 from a value of 5.5: half of them reach it; 95 of 100 are at most 9.5 or 10."""
    zero = hand_made([0.0], observed=0.0)
    steps = hand_made([5.5 + sign * step for sign in (1, -1) for step in range(1, 11)], observed=5.5)
    found = of_two([steps], [zero], "ap")
    assert (found.value, found.high) == (5.5, pytest.approx(5.5 + 9.5, abs=0.51))
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.p == pytest.approx((500 + 1) / 1001)
    assert of_two([hand_made([1.0], observed=1.0)], [zero], "ap").p == pytest.approx(1 / 1001), "never 0"


def test_an_interval_excludes_zero_where_its_own_test_says_so():
    for shift in (0.5, 1.5, 2.2, 4.0):
        values = np.random.default_rng(3).normal(0, 1, RESAMPLES) + shift
        found = of_two([hand_made(list(values), observed=shift)], [hand_made([0.0], 0.0)], "ap")
        assert (found.low > 0) == (found.p < 0.05)


def test_what_cannot_be_paired_is_refused():
    table = hand_made([0.0], observed=0.0)
    with pytest.raises(ValueError, match="no resamples of 'auroc'; known: ap"):
        of_two([table], [table], "auroc")
    for other in (hand_made([0.0], 0.0, images=2), table.replace_schema_metadata(None), table.slice(0, 500)):
        with pytest.raises(ValueError, match="the resamples are not of the same images"):
            of_two([table], [other], "ap")


@pytest.mark.slow
def test_the_bootstrap_errs_in_about_5_of_100_tests_where_nothing_differs():
    """120 test sets, two detectors of one skill with half of their noise in common: 6 errors are expected, give or take 5."""
    rng, errors = np.random.default_rng(8), 0
    for _ in range(120):
        common = {key: shift + rng.normal(size=120) for key, shift in ((0, -0.7), (1, 0.7))}
        tables = []
        for _ in range(2):
            real, fake = (own + rng.normal(size=120) for own in common.values())
            strata = Strata({"a": real}, {"a": fake}, {"a": ("a",)})
            found = resample(strata, ["a"], threshold=0.0, max_fpr={})["a"]["auroc"]
            observed = auroc(np.repeat([False, True], 120), np.concatenate([real, fake]))
            tables.append(resample_table({"auroc": observed}, {"auroc": found}, strata))
        errors += of_two([tables[0]], [tables[1]], "auroc").p < 0.05
    assert 1 <= errors <= 13


# Means over subsets: seeds and images


NOBODY: frozenset[str] = frozenset()


def seeds(values: list[float], noise: float = 0.0) -> list[pa.Table]:
    """Return the tables of several seeds: their numbers, and how far images move them, alike for all."""
    moved = noise * np.random.default_rng(0).normal(size=RESAMPLES)
    return [hand_made(list(value + moved), observed=value) for value in values]


def test_fewer_than_three_seeds_test_nothing():
    for count in (1, 2):
        found = of_two(seeds([0.9] * count, 0.01), seeds([0.5] * count), "ap", NOBODY)
        assert found.p is None and found.low < 0.4 < found.high
    assert of_two(seeds([0.9], 0.01), seeds([0.5, 0.52, 0.51]), "ap", frozenset({"a"})).p < 0.05, "a fixed model needs no seeds"


@pytest.mark.parametrize("count", [3, 5, 10])
def test_where_images_say_nothing_it_is_students_test_of_a_fixed_number(count):
    """One detector's seeds against a number that is fixed, within what 1,000 draws resolve."""
    rng = np.random.default_rng(count)
    for _ in range(20):
        values = list(rng.normal(0.6, 1, count))
        expected = scipy.stats.ttest_1samp(values, 0.0)
        found = compare({"a": seeds(values), "b": seeds([0.0])}, [("a", "b", "ap")], fixed=frozenset("b"))[0]
        assert found.p == pytest.approx(expected.pvalue, abs=0.05)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_of_two_detectors_it_is_near_welchs_test(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        a, b = list(rng.normal(0, 1, count)), list(rng.normal(2, 1.5, count))
        expected = scipy.stats.ttest_ind(a, b, equal_var=False)
        assert of_two(seeds(a), seeds(b), "ap", NOBODY).p == pytest.approx(expected.pvalue, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (1.0, 0.1)])
def test_two_detectors_of_three_seeds_are_called_different_at_most_5_times_in_100(first, second):
    """Seeds alone, of equal and of unequal spread; 2,000 worlds."""
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(2000):
        a, b = (list(rng.normal(0, spread, 3)) for spread in (first, second))
        wrong += of_two(seeds(a), seeds(b), "ap", NOBODY).p < 0.05
    assert 0.02 <= wrong / 2000 <= 0.06


def test_seeds_and_images_are_in_one_error():
    """Five seeds, so that the quantile hardly moves: the errors add as the sides of a right angle."""
    values = [0.71, 0.73, 0.75, 0.77, 0.79]
    alone = half_of(of_two(seeds(values), seeds([0.6] * 5), "ap", NOBODY))
    still = half_of(of_two(seeds([0.75] * 5, 0.05), seeds([0.6] * 5), "ap", NOBODY))
    both = half_of(of_two(seeds(values, 0.05), seeds([0.6] * 5), "ap", NOBODY))
    assert both == pytest.approx(np.hypot(alone, still), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [True, False])
def test_a_family_of_28_pairs_errs_in_5_of_100_reports_where_nothing_differs(fixed):
    """Eight detectors; every report has 28 p-values, and 15 of 300 reports may have one below 0.05, give or take 8."""
    rng, names, wrong = np.random.default_rng(1), [f"d{at}" for at in range(8)], 0
    questions = [(first, second, "ap") for at, first in enumerate(names) for second in names[at + 1 :]]
    for _ in range(300):
        common, moved = rng.normal(), rng.normal(size=RESAMPLES)
        tables = {}
        for name in names:
            own, moves = rng.normal(), rng.normal(size=RESAMPLES)
            images = common + own  # as far off as the images happen to put this detector
            trained = [0.0] if fixed else rng.normal(0, 1.5, 4)
            tables[name] = [hand_made(list(images + seed + moved + moves), observed=images + seed) for seed in trained]
        found = compare(tables, questions, fixed=frozenset(names) if fixed else NOBODY)
        wrong += min(own.p for own in found) < 0.05
    assert (5 if fixed else 0) <= wrong <= 26, "with seeds it errs on the safe side"


# A family at once


def test_eight_detectors_can_differ():
    """28 pairs: Holm's smallest p would be 28 / 1001 or more."""
    tables = {f"d{at}": seeds([0.5 + at / 10], 0.001) for at in range(8)}
    found = compare(tables, [(one, two, "ap") for one in tables for two in tables if one < two], fixed=frozenset(tables))
    assert [own.p for own in found] == pytest.approx([1 / 1001] * 28)


@given(seed=st.integers(0, 1000), count=st.integers(1, 6))
def test_max_t_is_never_below_the_unadjusted_and_keeps_the_order(seed, count):
    rng = np.random.default_rng(seed)
    null, distance = np.abs(rng.normal(size=(count, 200))), np.abs(rng.normal(size=count)) * 2
    adjusted = np.array(max_t(list(distance), list(null)))
    alone = (1 + (null >= distance[:, None]).sum(axis=1)) / 201
    assert np.all(adjusted >= alone - 1e-12) and np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(-distance, kind="stable")]) >= 0)


def test_max_t_of_one_question_asked_twice_is_that_of_one():
    null = np.abs(np.random.default_rng(0).normal(size=500))
    assert max_t([2.0, 2.0], [null, null]) == max_t([2.0], [null]) * 2


# Holm


def test_holm_of_a_family_worked_out_by_hand():
    # Sorted: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04, which may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.7, 0.9]) == pytest.approx([1, 1])
    assert holm([]).tolist() == []


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(p):
    found = holm(p)
    assert np.all(found >= p) and np.all(found <= np.minimum(np.array(p) * len(p), 1) + 1e-12)
    assert np.all(np.diff(found[np.argsort(p, kind="stable")]) >= 0)
    assert found.min() == pytest.approx(min(1, min(p) * len(p)))


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\]"):
        holm([0.5, bad])
