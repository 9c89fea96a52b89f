"""Comparisons of two detectors: against SciPy, plain loops and a hand, and how often they err where nothing differs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nullscope.core.contracts import CLEAN, SCORES
from nullscope.evaluation.metrics import auroc, evaluate, evaluate_with_resamples
from nullscope.evaluation.paired import Difference, delong, difference, holm, mcnemar
from nullscope.evaluation.resampling import RESAMPLES, Strata, interval, resample, resample_table

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


# The bootstrap of means


def test_a_detector_does_not_differ_from_itself():
    table = resamples(detector(1, 1.0))
    for key in table.column_names[1:]:
        assert difference([table], [table], key) == Difference(0, 0, 0, 1)


def test_pairing_takes_out_what_the_images_have_in_common():
    a, b = (resamples(detector(seed, skill)) for seed, skill in ((1, 1.2), (2, 1.0)))
    for key in ("mean_real_fakes", "ap", "auroc"):
        paired = difference([a], [b], key)
        shuffled = np.random.default_rng(0).permutation(b[key].to_numpy()[1:])
        low, high = interval(a[key].to_numpy()[1:] - shuffled)
        assert paired.high - paired.low < 0.8 * (high - low), key


def test_the_value_is_that_of_the_test_set():
    a, b = detector(1, 1.2), detector(2, 1.0)
    found = difference([resamples(a)], [resamples(b)], "auroc")
    assert found.value == pytest.approx(evaluate(a, NONE_SEEN)["auroc"] - evaluate(b, NONE_SEEN)["auroc"], abs=2e-6)
    other = difference([resamples(b)], [resamples(a)], "auroc")
    assert (other.value, other.low, other.high, other.p) == pytest.approx((-found.value, -found.high, -found.low, found.p))


def test_p_and_interval_of_hand_made_resamples():
    zero = hand_made([0.0], observed=0.0)
    nine_of_ten = hand_made([1, 2, 3, 4, 5, 6, 7, 8, 9, -1], observed=4.5)
    found = difference([nine_of_ten], [zero], "ap")
    assert (found.value, found.low, found.high) == (4.5, -1, 9)
    assert found.p == pytest.approx(2 * (100 + 1) / 1001)
    assert difference([hand_made([1.0], observed=1.0)], [zero], "ap").p == pytest.approx(2 / 1001), "never 0"


def test_seeds_are_averaged_resample_by_resample():
    first, second = hand_made([1.0, 5.0], observed=2.0), hand_made([3.0, -1.0], observed=4.0)
    found = difference([first, second], [hand_made([0.0], observed=0.5)], "ap")
    assert (found.value, found.low, found.high) == (2.5, 2, 2), "1 and 3, 5 and -1: both average to 2"


def test_what_cannot_be_paired_is_refused():
    table = hand_made([0.0], observed=0.0)
    with pytest.raises(ValueError, match="no resamples of 'auroc'; known: ap"):
        difference([table], [table], "auroc")
    for other in (hand_made([0.0], 0.0, images=2), table.replace_schema_metadata(None), table.slice(0, 500)):
        with pytest.raises(ValueError, match="ap: the resamples are not of the same images"):
            difference([table], [other], "ap")
    with pytest.raises(ValueError, match="found 1 and 0"):
        difference([table], [], "ap")


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
            tables.append(resample_table({"auroc": 0.0}, {"auroc": found}, strata))
        errors += difference([tables[0]], [tables[1]], "auroc").p < 0.05
    assert 1 <= errors <= 13


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
