"""Metrics: known answers, plain loops as reference, and the rules of the averagings."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from nullscope.core.contracts import CLEAN, SCORES, check_schema
from nullscope.evaluation import metrics
from nullscope.evaluation.resampling import resample_schema

NONE_SEEN: frozenset[str] = frozenset()


@pytest.fixture
def drawn():
    """200 images whose logits overlap and tie, unbalanced: (is_fake_N, logit_N)."""
    rng = np.random.default_rng(7)
    is_fake = rng.random(200) < 0.3
    return is_fake, np.round(rng.normal(size=200) + is_fake, 1)


def table(*rows: tuple[str, int, list[float]], degradation: str = CLEAN) -> pa.Table:
    """Return a scores table of (subset, label, logits) groups."""
    flat = [(subset, label, logit) for subset, label, logits in rows for logit in logits]
    subset, label, logit = map(list, zip(*flat, strict=True))
    ids, split, degraded = [str(i) for i in range(len(flat))], ["test"] * len(flat), [degradation] * len(flat)
    return pa.table([ids, split, subset, label, degraded, logit], schema=SCORES)


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
    assert metrics.tpr_at_fpr(is_fake, logit, 0.05) == 0.5
    assert metrics.tpr_at_fpr(is_fake, logit, 0.5) == 1


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
    assert metrics.tpr_at_fpr(is_fake, logit, 0.01) == 1


@pytest.mark.parametrize("max_fpr", [0.01, 0.05, 0.3])
def test_tpr_at_fpr_equals_a_loop_over_thresholds(drawn, max_fpr):
    is_fake, logit = drawn
    best = 0.0
    for threshold in [*logit, math.inf]:
        if (logit[~is_fake] >= threshold).mean() <= max_fpr:
            best = max(best, (logit[is_fake] >= threshold).mean())
    assert metrics.tpr_at_fpr(is_fake, logit, max_fpr) == pytest.approx(best)


# Calibration and intervals


def test_sigmoid_neither_overflows_nor_warns():
    with np.errstate(all="raise"):
        assert metrics.sigmoid(np.array([-1e5, 0.0, 1e5], np.float32)).tolist() == [0, 0.5, 1]


def test_calibration_error_equals_a_loop_over_bins(drawn):
    is_fake, logit = drawn
    bins: dict[int, list[tuple[float, bool]]] = {}
    for fake, value in zip(is_fake, logit, strict=True):
        p = 1 / (1 + math.exp(-value))
        bins.setdefault(max(0, math.ceil(p * 15) - 1), []).append((p, bool(fake)))
    expected = sum(abs(sum(p for p, _ in entries) - sum(fake for _, fake in entries)) for entries in bins.values()) / len(logit)
    assert metrics.expected_calibration_error(*drawn) == pytest.approx(expected)


def test_reliability_equals_scikit_learn(drawn):
    is_fake, logit = drawn
    observed, predicted = calibration_curve(is_fake, metrics.sigmoid(logit), n_bins=15)
    bins = metrics.reliability(*drawn)
    np.testing.assert_allclose(bins.observed_K, observed)
    np.testing.assert_allclose(bins.predicted_K, predicted)
    assert bins.count_K.sum() == len(logit)


def test_a_probability_on_an_edge_is_in_the_bin_scikit_learn_says(monkeypatch):
    probability = np.linspace(0, 1, 16)
    monkeypatch.setattr(metrics, "sigmoid", lambda logit_N: logit_N)
    is_fake = np.arange(16) % 3 == 0
    observed, _ = calibration_curve(is_fake, probability, n_bins=15)
    np.testing.assert_allclose(metrics.reliability(is_fake, probability).observed_K, observed)


def test_calibration_error_of_known_cases():
    sure_and_right = metrics.expected_calibration_error(np.array([False, True]), np.array([-50.0, 50.0]))
    sure_and_wrong = metrics.expected_calibration_error(np.array([True, False]), np.array([-50.0, 50.0]))
    assert (sure_and_right, sure_and_wrong) == (pytest.approx(0), pytest.approx(1))
    assert metrics.expected_calibration_error(np.array([False, True]), np.zeros(2)) == pytest.approx(0)


@given(count=st.integers(1, 10_000), part=st.floats(0, 1))
def test_wilson_equals_scipy(count, part):
    hits = round(part * count)
    low, high = metrics.wilson(hits / count, count)
    expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
    assert 0 <= low <= hits / count <= high <= 1


def test_wilson_of_no_trial_says_nothing():
    assert metrics.wilson(0.0, 0) == (0, 1)


# evaluate


def test_subsets_with_reals_of_their_own_are_averaged_without_weights():
    scores = table(("a", 0, [-1, 1]), ("a", 1, [1, 1]), ("b", 0, [-1]), ("b", 1, [1, -1, -1, -1]))
    found = metrics.evaluate(scores, frozenset({"a"}))
    assert (found["r_acc"], found["f_acc"]) == ((0.5 + 1) / 2, (1 + 0.25) / 2)
    assert found["acc"] == pytest.approx((3 / 4 + 2 / 5) / 2)
    assert found["mean_fakes"] == found["f_acc"]
    assert found["mean_real_fakes"] == pytest.approx((0.75 + 1 + 0.25) / 3, abs=1e-6)
    assert found["mean_balanced"] == pytest.approx((0.75 + 0.625) / 2)
    assert found["balanced_acc"] == pytest.approx((2 / 3 + 3 / 6) / 2, abs=1e-6)
    assert (found["f_acc_seen"], found["f_acc_unseen"]) == (1, 0.25)
    assert (found["acc_seen"], found["acc_unseen"]) == (0.75, 0.4)
    assert (found["n_real"], found["n_fake"]) == (3, 6)


def test_subsets_without_reals_are_compared_with_the_shared_ones():
    camera, lens, own = ("camera", 0, [-3, -1, 1]), ("lens", 0, [-1]), [("own", 0, [5]), ("own", 1, [6])]
    found = metrics.evaluate(table(camera, lens, ("x", 1, [2, -2]), *own), NONE_SEEN)
    x = found["subsets"]["x"]
    assert (x["n_real"], x["n_fake"], x["r_acc"], x["f_acc"]) == (4, 2, 0.75, 0.5)
    assert x["acc"] == pytest.approx(4 / 6, abs=1e-6)
    assert x["auroc"] == roc_auc_score([0, 0, 0, 0, 1, 1], [-3, -1, 1, -1, 2, -2])
    assert x["tpr_5"] == 0.5, "no real may be called fake: of the fakes at 2 and -2 one is above all of them"
    camera = found["subsets"]["camera"]
    assert (camera["r_acc"], camera["n_real"], camera["n_fake"]) == (0.666667, 3, 0)
    assert set(camera) == {"r_acc", "r_acc_low", "r_acc_high", "n_real", "n_fake"}
    assert found["subsets"]["own"]["r_acc"] == 0, "a subset with reals of its own is compared with those"
    assert found["r_acc"] == (0.75 + 0) / 2, "one entry per row with fakes, none for `camera` and `lens`"
    assert (found["n_real"], found["n_fake"]) == (5, 3), "shared reals are counted once"


def test_a_named_subset_lends_its_reals_and_the_pool_lends_to_the_rest():
    lenders = ("imagenet", 0, [-1, -1, -1, 1]), ("laion", 0, [1, 1])
    scores = table(*lenders, ("guided", 1, [2]), ("ldm", 1, [2]), ("other", 1, [2]), ("own", 0, [-5, -4]), ("own", 1, [3]))
    found = metrics.evaluate(scores, NONE_SEEN, {"guided": "imagenet", "ldm": "laion", "own": "laion"})["subsets"]
    assert (found["guided"]["n_real"], found["guided"]["r_acc"], found["guided"]["acc"]) == (4, 0.75, 0.8)
    assert (found["ldm"]["n_real"], found["ldm"]["r_acc"]) == (2, 0)
    assert (found["own"]["n_real"], found["own"]["r_acc"]) == (2, 0), "a name goes before the subset's own reals"
    assert (found["other"]["n_real"], found["other"]["r_acc"]) == (6, 0.5), "the pool holds all that are only reals"


def test_a_subset_with_fakes_may_lend_its_reals_too():
    scores = table(("a", 0, [-1, 1]), ("a", 1, [2]), ("b", 1, [2]))
    found = metrics.evaluate(scores, NONE_SEEN, {"b": "a"})
    assert (found["subsets"]["b"]["n_real"], found["subsets"]["b"]["r_acc"], found["n_real"]) == (2, 0.5, 2)


@pytest.mark.parametrize(
    ("reals", "message"),
    [
        (
            {"x": "imagnet"},
            "the subset that lends its reals to 'x' is 'imagnet', which has no reals in the test split; "
            "subsets with reals: camera, own",
        ),
        ({"x": "x"}, "the subset that lends its reals to 'x' is 'x', which has no reals .* subsets with reals: camera, own"),
        ({"y": "camera"}, "the subset is 'y', which has no fakes in the test split; subsets with fakes: own, x"),
        ({"camera": "own"}, "the subset is 'camera', which has no fakes"),
    ],
)
def test_a_name_that_the_test_set_does_not_have_is_refused(reals, message):
    scores = table(("camera", 0, [-1]), ("x", 1, [2]), ("own", 0, [-1]), ("own", 1, [1]))
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(scores, NONE_SEEN, reals)


RATES = {"r_acc", "f_acc", "acc"}
CURVES = {"ap", "auroc", "tpr_1", "tpr_5"}


def with_ends(keys: set[str]) -> set[str]:
    """Return the keys and those of their intervals."""
    return {key + end for key in keys for end in ("", "_low", "_high")}


def test_what_is_not_defined_is_left_out():
    fakes = metrics.evaluate(table(("x", 1, [1, -1])), NONE_SEEN)
    assert set(fakes) == with_ends({"f_acc", "mean_fakes", "f_acc_unseen"}) | {"protocol", "n_real", "n_fake", "subsets"}
    assert set(fakes["subsets"]["x"]) == with_ends({"f_acc"}) | {"n_real", "n_fake", "seen"}
    reals = metrics.evaluate(table(("camera", 0, [1, -1]), ("lens", 0, [-1, -1])), NONE_SEEN)
    assert set(reals) == with_ends({"r_acc"}) | {"protocol", "n_real", "n_fake", "subsets"}
    assert (reals["r_acc"], reals["n_real"], reals["n_fake"]) == (0.75, 4, 0)
    assert set(reals["subsets"]["camera"]) == with_ends({"r_acc"}) | {"n_real", "n_fake"}


def test_the_fields_are_the_contract():
    found = metrics.evaluate(table(("a", 0, [-1]), ("a", 1, [1]), ("b", 1, [1]), ("camera", 0, [-1])), frozenset({"a"}))
    means = RATES | CURVES | {"mean_real_fakes", "mean_fakes", "mean_balanced"}
    means |= {f"{key}_{word}" for key in (RATES | CURVES) - {"r_acc"} for word in ("seen", "unseen")}
    assert set(found) == with_ends(means) | {"balanced_acc", "ece", "n_real", "n_fake", "protocol", "subsets"}
    row = with_ends(RATES | CURVES | {"balanced_acc"}) | {"ece", "n_real", "n_fake", "seen"}
    assert set(found["subsets"]["a"]) == set(found["subsets"]["b"]) == row
    assert (found["subsets"]["a"]["seen"], found["subsets"]["b"]["seen"]) == (True, False)
    assert found["protocol"] == metrics.PROTOCOL == 2
    json.dumps(found, allow_nan=False)


def test_a_row_holds_what_the_functions_say(drawn):
    is_fake, logit = drawn
    row = metrics.evaluate(table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake]))), NONE_SEEN)["subsets"]["a"]
    expected = {"balanced_acc": metrics.balanced_accuracy(*drawn), "ece": metrics.expected_calibration_error(*drawn)}
    expected |= {"ap": metrics.average_precision(*drawn), "auroc": metrics.auroc(*drawn), "acc": metrics.accuracy(*drawn)}
    expected |= {"tpr_1": metrics.tpr_at_fpr(*drawn, 0.01), "tpr_5": metrics.tpr_at_fpr(*drawn, 0.05)}
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    for key, count in (("r_acc", (~is_fake).sum()), ("f_acc", is_fake.sum()), ("acc", len(logit))):
        assert (row[f"{key}_low"], row[f"{key}_high"]) == pytest.approx(metrics.wilson(row[key], count), abs=1e-6)


def test_a_mean_over_one_subset_is_that_subset(drawn):
    is_fake, logit = drawn
    found = metrics.evaluate(table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake]))), NONE_SEEN)
    row = found["subsets"]["a"]
    for key in CURVES:
        for end in ("", "_low", "_high"):
            assert found[key + end] == found[f"{key}_unseen{end}"] == row[key + end]
    assert [found[f"mean_balanced{end}"] for end in ("", "_low", "_high")] == [
        row[f"balanced_acc{end}"] for end in ("", "_low", "_high")
    ]


def test_the_resamples_of_the_means_are_what_the_intervals_are_of(drawn):
    is_fake, logit = drawn
    scores = table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake])), ("b", 1, [0.5, -0.5, 3]))
    found, resamples = metrics.evaluate_with_resamples(scores, frozenset({"b"}), {"b": "a"})
    assert found == metrics.evaluate(scores, frozenset({"b"}), {"b": "a"})
    assert resamples["resample"].to_pylist() == list(range(1001))
    keys = resamples.column_names[1:]
    assert keys == sorted(key.removesuffix("_low") for key in found if key.endswith("_low"))
    for key in keys:
        observed, *values = resamples[key].to_pylist()
        assert found[key] == round(observed, 6)
        low, high = np.quantile(values, [0.025, 0.975])
        assert [found[f"{key}_low"], found[f"{key}_high"]] == pytest.approx([low, high], abs=1e-6)
        assert low < high
    check_schema(resamples.schema, resample_schema(keys), "resamples")
    columns = [resamples[key].to_numpy() for key in ("r_acc", "f_acc_seen", "f_acc_unseen")]  # one subset is seen, one is not
    np.testing.assert_allclose(resamples["mean_real_fakes"].to_numpy(), np.mean(columns, axis=0))


def interleaved(scores: pa.Table, seed: int) -> pa.Table:
    """Return the rows of all subsets and labels shuffled, each stratum's own in their order."""
    strata = [f"{row['subset']}/{row['label']}" for row in scores.select(["subset", "label"]).to_pylist()]
    waiting = {name: [i for i, other in enumerate(strata) if other == name] for name in set(strata)}
    return scores.take([waiting[name].pop(0) for name in np.random.default_rng(seed).permutation(strata)])


def test_numbers_are_rounded_and_do_not_depend_on_the_order_of_rows(drawn):
    is_fake, logit = drawn
    scores = table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake])), ("b", 1, [0.5, -0.5, 3]))
    found = metrics.evaluate(scores, NONE_SEEN)
    other = metrics.evaluate(interleaved(scores, 1), NONE_SEEN)
    assert json.dumps(found, sort_keys=True) == json.dumps(other, sort_keys=True)
    shuffled = metrics.evaluate(scores.take(np.random.default_rng(1).permutation(scores.num_rows)), NONE_SEEN)
    ends = [key for key in found if key.endswith(("_low", "_high"))]
    assert ends, "the bootstrap draws by position: another order is another, equally good draw"
    assert [(key, found[key]) for key in found if key not in (*ends, "subsets")] == [
        (key, shuffled[key]) for key in found if key not in (*ends, "subsets")
    ]
    assert found["ap"] == round(found["ap"], 6)


def test_other_degradations_are_nested():
    clean = table(("a", 0, [-1]), ("a", 1, [1]))
    both = pa.concat_tables([clean, table(("a", 0, [1]), ("a", 1, [1]), degradation="jpeg_75")])
    found = metrics.evaluate(both, NONE_SEEN)
    degraded = found.pop("degradations")["jpeg_75"]
    assert (degraded["r_acc"], degraded["mean_balanced"]) == (0, 0.5)
    assert not [key for key in degraded if key.endswith(("_low", "_high"))], "the bootstrap is of the clean images only"
    ends = {key.removesuffix("_low") for key in degraded["subsets"]["a"] if key.endswith("_low")}
    assert ends == RATES and set(degraded["subsets"]["a"]) >= CURVES
    assert "protocol" not in degraded
    assert found == metrics.evaluate(clean, NONE_SEEN)
    with pytest.raises(ValueError, match="'none', found \\['jpeg_75'\\]"):
        metrics.evaluate(table(("a", 0, [1]), degradation="jpeg_75"), NONE_SEEN)


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="1 of 2 logits are not finite"):
        metrics.evaluate(table(("a", 0, [-1, math.nan])), NONE_SEEN)
    with pytest.raises(ValueError, match=r"expected the labels 0 \(real\) and 1 \(fake\), found \[0, 2\]"):
        metrics.evaluate(table(("a", 0, [-1]), ("a", 2, [-1])), NONE_SEEN)


def test_a_subset_is_seen_if_its_generator_was_trained_on():
    columns = ["split", "subset", "generator", "label"]
    rows = [
        ("train", "a", "vae", 1), ("train", "a", "vae", 1), ("train", "a", "real", 0),
        ("test", "camera", "real", 0), ("test", "first", "vae", 1), ("test", "second", "gan", 1),
        ("test", "mixed", "vae", 1), ("test", "mixed", "gan", 1), ("test", "own", "real", 0), ("test", "own", "gan", 1),
    ]  # fmt: skip
    batches = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))).to_batches(max_chunksize=3)
    counts = metrics.index_counts(batches)
    assert counts["train", "a", "vae", 1] == 2
    assert counts.total() == len(rows)
    assert metrics.seen_subsets(counts) == {"first", "mixed"}


def test_the_module_starts_without_torch():
    code = "import sys, nullscope.evaluation.metrics; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
