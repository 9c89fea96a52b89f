"""Detectors two by two: order, the family's test, a detector against itself, and what is left out."""

from __future__ import annotations

import pyarrow as pa
import pytest
from report.resampled import resampled

from nullscope.evaluation.paired import compare
from nullscope.report.tables.generators import per_generator_differences
from nullscope.report.tables.pairs import FEW_SEEDS, p_text, pairs_table

KEYS = ("auroc", "mean_balanced")
NOBODY: frozenset[str] = frozenset()


def table_of(seed: int, mean: float, keys: tuple[str, ...] = KEYS) -> pa.Table:
    return resampled(dict.fromkeys(keys, mean + 0.001 * (seed % 10)) | {"auroc/x": mean, "auroc/y": 1 - mean}, seed)


@pytest.fixture
def found() -> dict[str, list[pa.Table]]:
    """Four detectors, three seeds."""
    means = {"a": 0.80, "b": 0.797, "c": 0.79, "d": 0.70}
    return {name: [table_of(10 * at + seed, mean) for seed in (1, 2, 3)] for at, (name, mean) in enumerate(means.items())}


def cells(table, key: str) -> list:
    at = [column.key for column in table.columns].index(key)
    return [row[at] for row in table.rows]


def test_every_pair_stands_once_in_the_order_of_the_detectors(found):
    table = pairs_table(found, NOBODY)
    pairs = list(zip(cells(table, "first"), cells(table, "second"), strict=True))
    assert pairs == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert [round(cell.mean, 9) for cell in cells(table, "auroc_difference")] == [0.003, 0.01, 0.1, 0.007, 0.097, 0.09]


def test_all_pairs_of_a_column_are_one_family(found):
    table = pairs_table(found, NOBODY)
    pairs = zip(cells(table, "first"), cells(table, "second"), strict=True)
    expected = compare(found, [(*pair, "auroc") for pair in pairs], fixed=NOBODY)
    assert [(cell.low, cell.high) for cell in cells(table, "auroc_difference")] == [(own.low, own.high) for own in expected]
    assert cells(table, "auroc_p") == [p_text(own.p) for own in expected]
    alone = compare(found, [("a", "c", "auroc")], fixed=NOBODY)[0]
    assert alone.p < expected[1].p, "there is something to adjust"


def test_generators_are_counted_on_which_the_first_is_ahead(found):
    assert cells(pairs_table(found, NOBODY), "ahead") == ["1 of 2"] * 6, "ahead on x, behind on y"


def test_one_seed_has_intervals_and_no_p(found):
    table = pairs_table({name: own[:1] for name, own in found.items()}, NOBODY)
    assert set(cells(table, "auroc_p")) == {"n/a"} and FEW_SEEDS in table.note
    assert all(cell.low < cell.mean < cell.high for cell in cells(table, "auroc_difference"))
    fixed = pairs_table({name: own[:1] for name, own in found.items()}, frozenset(found))
    assert "n/a" not in cells(fixed, "auroc_p") and FEW_SEEDS not in fixed.note, "fixed models are not trained again"


def test_a_detector_does_not_differ_from_itself(found):
    ((first, second, less, p, balanced, balanced_p, ahead),) = pairs_table(
        {"a": found["a"][:1], "b": found["a"][:1]}, frozenset("ab")
    ).rows
    assert (first, second, ahead) == ("a", "b", "0 of 2")
    assert [(cell.mean, cell.low, cell.high) for cell in (less, balanced)] == [(0, 0, 0)] * 2
    assert (p, balanced_p) == ("1.000", "1.000")


def test_a_number_that_some_run_lacks_is_left_out(found):
    found["c"][1] = table_of(3, 0.7, ("auroc",))
    keys = [column.key for column in pairs_table(found, NOBODY).columns]
    assert "auroc_difference" in keys
    assert not any(key.startswith("mean_balanced") for key in keys)
    assert pairs_table({name: [table_of(3, 0.7, ("r_acc",))] for name in found}, NOBODY) is None


def test_one_detector_has_no_pair(found):
    assert pairs_table({"a": found["a"]}, NOBODY) is None


def test_resamples_of_other_images_are_refused(found):
    found["b"] = [table.replace_schema_metadata({"strata": "of another"}) for table in found["b"]]
    with pytest.raises(ValueError, match="cannot be paired"):
        pairs_table(found, NOBODY)


def test_claims_per_generator_are_one_family(found):
    rows = {name: {"n_fake": 5, "seen": False} for name in ("x", "y", "z")}
    summary = {f"{name}-{seed}": {"subsets": rows} for name in found for seed in range(3)}
    table = per_generator_differences(summary, found, NOBODY)
    assert [column.key for column in table.columns] == ["detector", "x", "y"], "z has no AUROC"
    questions = [(name, "a", f"auroc/{subset}") for name in "bcd" for subset in "xy"]
    expected = compare(found, questions, fixed=NOBODY)
    assert [cell.p for row in table.rows for cell in row[1:]] == [own.p for own in expected]
    assert per_generator_differences({"a-0": {"subsets": rows}}, {"a": found["a"]}, NOBODY) is None


@pytest.mark.parametrize(
    ("p", "shown"), [(0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "0.001"), (0.0499, "0.050"), (0.9999, "1.000"), (1, "1.000")]
)
def test_p_values_have_three_decimals(p, shown):
    assert p_text(p) == shown
