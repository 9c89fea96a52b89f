"""Detectors two by two: order, Holm's adjustment by hand, a detector against itself, and what is left out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from nullscope.evaluation.metrics import auroc
from nullscope.evaluation.paired import delong
from nullscope.evaluation.resampling import RESAMPLES, resample_schema
from nullscope.evaluation.scores import Scores
from nullscope.report.tables.pairs import p_text, pairs_table

KEYS = ("auroc", "mean_balanced")
IMAGES = 200


def resamples(seed: int, mean: float, keys: tuple[str, ...] = KEYS) -> pa.Table:
    """The resamples of a run around ``mean``, its own luck smaller than that of the images, which all runs share."""
    images, own = np.random.default_rng(0), np.random.default_rng(seed)
    shared = images.normal(0, 0.02, RESAMPLES + 1)
    columns = [np.r_[mean, mean + (shared + own.normal(0, 0.005, RESAMPLES + 1))[1:]] for _ in keys]
    schema = resample_schema(keys).with_metadata({"strata": "of one test set"})
    return pa.table([np.arange(RESAMPLES + 1, dtype=np.int32), *columns], schema=schema)


@pytest.fixture
def found() -> dict[str, list[pa.Table]]:
    """Four detectors, two seeds."""
    means = {"a": 0.80, "b": 0.797, "c": 0.79, "d": 0.70}
    return {name: [resamples(10 * at + seed, mean) for seed in (1, 2)] for at, (name, mean) in enumerate(means.items())}


@pytest.fixture
def scores() -> dict[str, Scores]:
    """The first seed of each on the same images: some more often right than others, in no order of their logits."""
    rng = np.random.default_rng(1)
    is_fake_N = rng.random(IMAGES) < 0.5
    found = {}
    for name, rate in {"a": 0.8, "b": 0.75, "c": 0.7, "d": 0.6}.items():
        right_N = rng.random(IMAGES) < rate
        logit_N = np.where(right_N == is_fake_N, 1, -1) * rng.random(IMAGES)
        found[name] = Scores(is_fake_N, np.zeros(IMAGES, bool), logit_N.astype(np.float32))
    return found


def cells(table, key: str) -> list:
    at = [column.key for column in table.columns].index(key)
    return [row[at] for row in table.rows]


def by_hand(p_K: list[float]) -> list[float]:
    """Holm's adjustment, step by step."""
    adjusted, largest = [0.0] * len(p_K), 0.0
    for rank, at in enumerate(sorted(range(len(p_K)), key=lambda at: p_K[at])):
        largest = max(largest, min(1.0, (len(p_K) - rank) * p_K[at]))
        adjusted[at] = largest
    return adjusted


def test_every_pair_stands_once_in_the_order_of_the_detectors(found, scores):
    table = pairs_table(found, scores.get)
    pairs = list(zip(cells(table, "first"), cells(table, "second"), strict=True))
    assert pairs == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert [round(cell.mean, 9) for cell in cells(table, "auroc_difference")] == [0.003, 0.01, 0.1, 0.007, 0.097, 0.09]


def test_the_interval_and_p_are_those_of_the_paired_resamples(found, scores):
    table = pairs_table(found, scores.get)
    raw, pairs = [], zip(cells(table, "first"), cells(table, "second"), strict=True)
    for (first, second), cell in zip(pairs, cells(table, "auroc_difference"), strict=True):
        less_R = np.mean([t["auroc"].to_numpy() for t in found[first]], 0) - np.mean(
            [t["auroc"].to_numpy() for t in found[second]], 0
        )
        assert [cell.low, cell.high] == pytest.approx(list(np.quantile(less_R[1:], [0.025, 0.975])))
        raw.append(min(1.0, 2 * (min((less_R[1:] <= 0).sum(), (less_R[1:] >= 0).sum()) + 1) / (RESAMPLES + 1)))
    assert cells(table, "auroc_p") == [p_text(p) for p in by_hand(raw)]
    assert raw != by_hand(raw), "there is something to adjust"
    assert cells(table, "auroc_p")[0] > cells(table, "auroc_p")[2] == p_text(6 * 2 / (RESAMPLES + 1))


def test_the_exact_test_counts_images_and_is_adjusted_too(found, scores):
    table = pairs_table(found, scores.get)
    raw = []
    for first, second, *_ in table.rows:
        one, other = ((scores[name].logit_N > 0) == scores[name].is_fake_N for name in (first, second))
        only = (
            sum(a and not b for a, b in zip(one, other, strict=True)),
            sum(b and not a for a, b in zip(one, other, strict=True)),
        )
        raw.append((only, stats.binomtest(only[0], sum(only), 0.5).pvalue))
    assert list(zip(cells(table, "only_first"), cells(table, "only_second"), strict=True)) == [only for only, _ in raw]
    assert cells(table, "mcnemar_p") == [p_text(p) for p in by_hand([p for _, p in raw])]


def test_delongs_test_is_that_of_the_first_seed_and_is_adjusted_too(found, scores):
    table, raw = pairs_table(found, scores.get), []
    for (first, second, *_), cell in zip(table.rows, cells(table, "auroc_pooled_difference"), strict=True):
        one, other = scores[first], scores[second]
        expected = delong(one.is_fake_N, one.logit_N, other.logit_N)
        assert cell.mean == pytest.approx(auroc(one.is_fake_N, one.logit_N) - auroc(one.is_fake_N, other.logit_N))
        assert (cell.low, cell.high) == (expected.low, expected.high)
        raw.append(expected.p)
    assert cells(table, "auroc_pooled_p") == [p_text(p) for p in by_hand(raw)]
    assert raw != by_hand(raw), "there is something to adjust"


def test_scores_of_other_images_are_refused(found, scores):
    scores["b"] = Scores(~scores["b"].is_fake_N, scores["b"].is_seen_N, scores["b"].logit_N)
    with pytest.raises(ValueError, match="a, b: expected scores of the same images"):
        pairs_table(found, scores.get)


def test_the_scores_of_two_detectors_are_held_at_a_time(found, scores):
    """D detectors are read D (D + 1) / 2 - 1 times: none is kept for a later pair."""
    reads = []
    pairs_table(found, lambda name: reads.append(name) or scores[name])
    assert reads == ["a", "b", "c", "d", "b", "c", "d", "c", "d"]


def test_a_detector_does_not_differ_from_itself(found, scores):
    table = pairs_table({"a": found["a"], "again": found["a"]}, lambda _: scores["a"])
    ((first, second, less, p, balanced, balanced_p, pooled, pooled_p, *only, exact),) = table.rows
    assert (first, second) == ("a", "again")
    assert [(cell.mean, cell.low, cell.high) for cell in (less, balanced, pooled)] == [(0, 0, 0)] * 3
    assert (p, balanced_p, pooled_p, exact, only) == ("1.000", "1.000", "1.000", "1.000", [0, 0])


def test_a_number_that_some_run_lacks_is_left_out(found, scores):
    found["c"][1] = resamples(3, 0.7, ("auroc",))
    keys = [column.key for column in pairs_table(found, scores.get).columns]
    assert "auroc_difference" in keys
    assert not any(key.startswith("mean_balanced") for key in keys)
    assert pairs_table({name: [resamples(3, 0.7, ("r_acc",))] for name in found}, scores.get) is None


def test_one_detector_has_no_pair(found, scores):
    assert pairs_table({"a": found["a"]}, scores.get) is None


def test_resamples_of_other_images_are_refused(found, scores):
    found["b"] = [table.replace_schema_metadata({"strata": "of another"}) for table in found["b"]]
    with pytest.raises(ValueError, match="cannot be paired"):
        pairs_table(found, scores.get)


@pytest.mark.parametrize(
    ("p", "shown"), [(0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "0.001"), (0.0499, "0.050"), (0.9999, "1.000"), (1, "1.000")]
)
def test_p_values_have_three_decimals(p, shown):
    assert p_text(p) == shown
