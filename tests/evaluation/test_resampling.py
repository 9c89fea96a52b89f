"""The bootstrap: every resample against scikit-learn on the images drawn, the pairing, and how often intervals hold the truth."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from nullscope.core.contracts import CLEAN, check_schema
from nullscope.evaluation import metrics, resampling
from nullscope.evaluation.intervals import on_logit_scale
from nullscope.evaluation.protocol import evaluate_with_resamples
from nullscope.evaluation.resampling import Strata, resample, resample_schema, resample_table
from nullscope.tables.parquet import read_schema, read_table, write_table

ALARMS = {"tpr_1": 0.01, "tpr_5": 0.05, "tpr_30": 0.3}
KEYS = {"r_acc", "f_acc", "acc", "balanced_acc", "ap", "auroc"}


def strata(*rows: tuple[str, int, list[float]], reals: dict[str, str] | None = None) -> Strata:
    """Return the strata of (subset, label, logits) groups."""
    flat = [(subset, label, CLEAN, logit) for subset, label, logits in rows for logit in logits]
    columns = ["subset", "label", "degradation", "logit"]
    return Strata.of(pa.table(dict(zip(columns, map(list, zip(*flat, strict=True)), strict=True))), reals or {})


def resampled(found: Strata, *subsets: str) -> dict[str, resampling.Resamples]:
    return resample(found, subsets or found.lenders, threshold=metrics.THRESHOLD, max_fpr=ALARMS)


def drawn_images(subset: str, label: int, logits: np.ndarray, resamples: int) -> np.ndarray:
    """Return the images of the first resamples, by the rule of docs/protocol.md: (B, N) logits."""
    rng = np.random.default_rng(zlib.crc32(f"bootstrap/{subset}/{label}".encode()))
    return np.array([np.asarray(logits, float)[rng.integers(0, len(logits), len(logits))] for _ in range(resamples)])


def reference(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Return every statistic of some images, by scikit-learn or by the functions of one test set."""
    pool = np.repeat([False, True], [len(real), len(fake)]), np.concatenate([real, fake])
    found = {"ap": average_precision_score(*pool), "auroc": roc_auc_score(*pool), "acc": metrics.accuracy(*pool)}
    found |= {"r_acc": (real <= 0).mean(), "f_acc": (fake > 0).mean(), "balanced_acc": metrics.balanced_accuracy(*pool)}
    shares = {key: metrics.tpr_at_fpr(*pool, rate) for key, rate in ALARMS.items()}
    return found | {key: value for key, value in shares.items() if value is not None}


def normal(seed: int, shift: float, size: int, digits: int = 2) -> np.ndarray:
    return np.round(np.random.default_rng(seed).normal(shift, 1, size), digits)


# Every resample is the statistic of the images drawn


@pytest.mark.parametrize(("digits", "reals"), [(0, 41), (1, 41), (9, 41), (9, 19), (1, 99)])  # 19 and 99 reals just do
def test_resamples_equal_scikit_learn_on_the_images_drawn(digits, reals):
    real, fake = normal(1, -0.5, reals, digits), normal(2, 0.8, 23, digits)
    found = resampled(strata(("a", 0, real), ("a", 1, fake)))["a"]
    assert set(found) == KEYS | {"tpr_5", "tpr_30"} | ({"tpr_1"} if reals >= 99 else set())
    assert {values.shape for values in found.values()} == {(1000,)}
    pairs = zip(drawn_images("a", 0, real, 50), drawn_images("a", 1, fake, 50), strict=True)
    for r, pair in enumerate(pairs):
        expected = reference(*pair)
        assert {key: values[r] for key, values in found.items()} == pytest.approx(expected, abs=1e-12), f"resample {r}"


LOGITS = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(real=LOGITS, fake=LOGITS)
def test_ties_and_few_images_are_no_exception(real, fake):
    found = resampled(strata(("a", 0, real), ("a", 1, fake)))["a"]
    for r, (reals, fakes) in enumerate(zip(drawn_images("a", 0, real, 5), drawn_images("a", 1, fake, 5), strict=True)):
        assert {key: values[r] for key, values in found.items()} == pytest.approx(reference(reals, fakes), abs=1e-12)


def test_one_image_of_each_kind_is_drawn_again_and_again():
    found = resampled(strata(("a", 0, [-1.0]), ("a", 1, [2.0])))["a"]
    assert {key: set(values) for key, values in found.items()} == {key: {1.0} for key in KEYS}, "one real sets no threshold"


def test_a_subset_of_one_kind_has_its_rate_alone():
    found = resampled(strata(("camera", 0, [-1.0, 1.0])))
    assert {name: set(own) for name, own in found.items()} == {"camera": {"r_acc"}}
    assert set(found["camera"]["r_acc"]) == {0.0, 0.5, 1.0}
    found = resampled(strata(("x", 1, [-1.0, 1.0])))
    assert {name: set(own) for name, own in found.items()} == {"x": {"f_acc"}}


@pytest.mark.parametrize("block", [1, 97, 5000])
def test_the_size_of_a_block_changes_no_bit(monkeypatch, block):
    found = strata(("camera", 0, normal(1, -1, 60)), ("a", 1, normal(2, 1, 40)), ("b", 1, normal(3, 1, 7)))
    expected = resampled(found)
    monkeypatch.setattr(resampling, "BLOCK", block)
    for name, own in resampled(found).items():
        for key, values in own.items():
            assert np.array_equal(values, expected[name][key])


# What is drawn


def test_shared_reals_are_drawn_once_for_all_that_use_them():
    camera, lens, far = normal(1, -1, 30), normal(2, 0, 20), np.full(4, 99.0)
    found = resampled(strata(("camera", 0, camera), ("lens", 0, lens), ("x", 1, far), ("y", 1, normal(3, 1, 9))), "x", "y")
    assert np.array_equal(found["x"]["r_acc"], found["y"]["r_acc"])
    pools = zip(drawn_images("camera", 0, camera, 30), drawn_images("lens", 0, lens, 30), strict=True)
    assert found["x"]["r_acc"][:30].tolist() == [(np.concatenate(pool) <= 0).mean() for pool in pools]
    assert set(found["x"]["auroc"]) == {1.0}


def test_a_stratum_in_two_pools_is_drawn_alike_in_both():
    rows = ("camera", 0, normal(1, -1, 30)), ("lens", 0, np.full(30, -9.0)), ("x", 1, [1.0, 2.0]), ("y", 1, [1.0, 2.0])
    found = resampled(strata(*rows, reals={"x": "camera"}), "x", "y")
    np.testing.assert_allclose(found["y"]["r_acc"], (found["x"]["r_acc"] + 1) / 2)


def test_strata_of_the_same_logits_are_drawn_apart():
    logits = normal(1, 0, 50)
    found = resampled(strata(("a", 0, logits), ("a", 1, -logits), ("b", 0, logits), ("b", 1, -logits)))
    assert abs(np.corrcoef(found["a"]["r_acc"], found["a"]["f_acc"])[0, 1]) < 0.15
    assert abs(np.corrcoef(found["a"]["r_acc"], found["b"]["r_acc"])[0, 1]) < 0.15


def test_draws_depend_on_the_strata_and_on_no_logit():
    real, fake = np.arange(40.0), np.arange(30.0)
    by_position = resampled(strata(("a", 0, real - 20), ("a", 1, fake - 15)))["a"]
    reversed_ = resampled(strata(("a", 0, real[::-1] - 20), ("a", 1, fake - 15)))["a"]
    assert np.array_equal(by_position["f_acc"], reversed_["f_acc"]), "another detector's reals do not move the fakes' draws"
    assert not np.array_equal(by_position["r_acc"], reversed_["r_acc"])


# Intervals and tables


def test_the_table_starts_with_the_test_set_itself_and_survives_a_file(tmp_path):
    found = strata(("a", 0, [-1.0]), ("a", 1, [1.0]))
    table = resample_table({"b": 0.25, "a": 0.5, "c": 1}, {"b": np.zeros(1000), "a": np.arange(1000.0)}, found)
    assert table.column_names == ["resample", "a", "b"]
    assert (table["a"].to_pylist()[:3], table["b"].to_pylist()[:2]) == ([0.5, 0, 1], [0.25, 0])
    check_schema(table.schema, resample_schema(["a", "b"]), "table")
    path = tmp_path / "run.parquet"
    write_table(path, table, table.schema)
    read = read_table(path, resample_schema(read_schema(path).names[1:]))
    assert read.equals(table, check_metadata=True) and read.schema.metadata[b"strata"].decode() == found.fingerprint


def test_a_fingerprint_tells_test_sets_apart():
    rows = ("camera", 0, [-1.0]), ("lens", 0, [-1.0]), ("x", 1, [1.0, 2.0])
    first = strata(*rows).fingerprint
    assert first == strata(rows[2], rows[0], ("lens", 0, [3.0])).fingerprint, "order and logits say nothing of the images"
    others = [strata(*rows[:2], ("x", 1, [1.0])), strata(*rows[:2], ("y", 1, [1.0, 2.0])), strata(*rows, reals={"x": "lens"})]
    assert len({first, *(other.fingerprint for other in others)}) == 4


def test_a_fingerprint_tells_images_apart_and_their_order():
    """Draws are by position: two score files are paired only where every position is the same image."""
    table = pa.table(
        {"image_id": ["a", "b"], "subset": ["x", "x"], "label": [0, 1], "degradation": [CLEAN] * 2, "logit": [0.0, 1.0]}
    )
    swapped = table.set_column(0, "image_id", pa.array(["b", "a"]))
    assert Strata.of(table, {}).fingerprint == Strata.of(pa.concat_tables([table.slice(0, 1), table.slice(1)]), {}).fingerprint
    assert Strata.of(table, {}).fingerprint != Strata.of(swapped, {}).fingerprint


# Groups


def grouped(*rows: tuple[str, int, list[float], list[str]]) -> Strata:
    """Return the strata of (subset, label, logits, groups)."""
    flat = [(subset, label, CLEAN, *pair) for subset, label, *both in rows for pair in zip(*both, strict=True)]
    columns = ["subset", "label", "degradation", "logit", "group"]
    return Strata.of(pa.table(dict(zip(columns, map(list, zip(*flat, strict=True)), strict=True))), {})


def test_a_group_is_drawn_whole_whatever_its_subsets_and_labels():
    """Every group holds a real and two fakes; a real is right where its own fakes are, so a resample is right on as many."""
    right = np.random.default_rng(0).random(60) < 0.7
    names = [f"prompt {at}" for at in range(60)]
    fakes = np.where(right, 1.0, -1.0)
    found = resampled(grouped(("a", 0, -fakes, names), ("a", 1, fakes, names), ("b", 1, fakes[::-1], names[::-1])), "a")
    assert np.array_equal(found["a"]["r_acc"], found["a"]["f_acc"])
    assert found["a"]["f_acc"].std() == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / 60), rel=0.1)


def test_groups_of_four_copies_make_an_interval_twice_as_wide():
    logits, names = np.repeat(normal(1, 0, 100), 4), np.repeat([f"g{at}" for at in range(100)], 4)
    alone = resampled(grouped(("a", 1, logits, [f"{at}" for at in range(400)])))["a"]["f_acc"]
    together = resampled(grouped(("a", 1, logits, names)))["a"]["f_acc"]
    assert together.std() / alone.std() == pytest.approx(2, rel=0.1)


def test_a_stratum_whose_groups_are_not_drawn_keeps_its_images():
    found = resampled(grouped(("a", 0, [-1.0], ["x"]), ("a", 1, [1.0, -1.0], ["y", "z"])))["a"]
    assert set(found["r_acc"]) == {1.0} and {0.0, 0.5, 1.0} <= set(found["f_acc"])
    assert np.isfinite(found["auroc"]).all()


# How often an interval holds the truth


@pytest.mark.slow
def test_the_bootstrap_holds_the_truth_in_about_95_of_100_tests():
    """Binormal scores, 150 reals and 150 fakes: 200 test sets. Two standard errors of a count of 190 are 6."""
    shift, tests, images = 1.4, 200, 150
    threshold = np.linspace(12, -8, 100_001)
    recall, alarms = scipy.stats.norm.sf(threshold - shift / 2), scipy.stats.norm.sf(threshold + shift / 2)
    truth = {
        "auroc": scipy.stats.norm.cdf(shift / np.sqrt(2)),
        "ap": np.trapezoid(recall / (recall + alarms), recall),
        "balanced_acc": scipy.stats.norm.cdf(shift / 2),
        "tpr_5": scipy.stats.norm.sf(scipy.stats.norm.isf(0.05) - shift),
    }
    held = dict.fromkeys(truth, 0)
    rng = np.random.default_rng(5)
    for _ in range(tests):
        found = strata(("a", 0, rng.normal(-shift / 2, 1, images)), ("a", 1, rng.normal(shift / 2, 1, images)))
        own = resampled(found)["a"]
        observed = reference(found.reals["a"], found.fakes["a"])
        for key, true in truth.items():
            quantiles = np.quantile(own[key], [0.025, 0.975])
            low, high = quantiles if key == "tpr_5" else on_logit_scale(observed[key], own[key].std(ddof=1))
            held[key] += low <= true <= high
    assert all(178 <= count <= 198 for count in held.values()), held


# Size


@pytest.mark.slow
def test_300_000_images_in_25_subsets_fit_in_memory():
    """Below 2 GB was asked for; arrays of half a gigabyte leave room for the libraries themselves."""
    names = [f"subset_{number}" for number in range(25)]
    label_N = np.tile(np.repeat([0, 1], 6000), len(names))
    logit_N = np.random.default_rng(0).normal(label_N, 1).astype(np.float32)
    columns = {"subset": np.repeat(names, 12_000), "label": label_N.astype(np.int8), "degradation": [CLEAN] * len(label_N)}
    scores = pa.table(columns | {"logit": logit_N})
    tracemalloc.start()
    try:
        found, resamples = evaluate_with_resamples(scores, frozenset(names[:2]))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found["n_real"] + found["n_fake"], len(resamples)) == (300_000, 1001)
    assert peak_bytes < 500_000_000
