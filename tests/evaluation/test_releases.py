"""Generators by their days: what could have been trained on, and what came after."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from report.resampled import resampled

from nullscope.evaluation.intervals import on_logit_scale, wilson
from nullscope.evaluation.releases import mean_over, releases
from nullscope.report.tables.releases import releases_table

OLD, T, NEW = date(2019, 1, 1), date(2022, 8, 22), date(2023, 3, 15)
TRAIN = [("train", "sd", 1, T), ("train", "gan", 1, OLD), ("train", "sd", 0, None)]


def index_of(rows: list[tuple], size: int = 2) -> list[pa.RecordBatch]:
    schema = pa.schema([("split", pa.string()), ("subset", pa.string()), ("label", pa.int8()), ("released", pa.date32())])
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    return table.to_batches(max_chunksize=size)


def test_subsets_are_divided_at_the_newest_generator_of_the_training():
    test = [("sd", T), ("old", OLD), ("new", NEW), ("both", OLD), ("both", NEW), ("unknown", None), ("unknown", NEW)]
    found = releases(index_of([*TRAIN, *(("test", subset, 1, day) for subset, day in test), ("test", "camera", 0, None)]))
    assert found.trained_until == T
    assert (found.until, found.after, found.left_out) == (("old", "sd"), ("new",), ("both", "unknown"))


@pytest.mark.parametrize(
    "rows",
    [
        [*TRAIN, ("test", "sd", 1, T)],  # nothing came after
        [*TRAIN, ("train", "x", 1, None), ("test", "new", 1, NEW)],  # a training generator of any day
        [("test", "new", 1, NEW)],  # nothing was trained on
    ],
)
def test_where_the_days_say_nothing_there_is_no_table(rows):
    assert releases(index_of(rows)) is None
    assert releases_table(releases(index_of(rows)), {}, {"x": []}, frozenset()) is None


def test_the_mean_over_subsets_is_of_the_same_images_in_all():
    """Both subsets move together in the resamples, as with shared reals: the mean's error is that of one, not of two."""
    tables = [resampled({"auroc/a": 0.9, "auroc/b": 0.8}, seed, noise=0.0) for seed in (0, 1, 2)]
    found = mean_over([{}] * 3, tables, "auroc", ["a", "b"])
    error = float(np.std(tables[0]["auroc/a"].to_numpy()[1:], ddof=1))
    assert (found.mean, found.seeds) == (pytest.approx(0.85), 3)
    assert (found.low, found.high) == pytest.approx(on_logit_scale(0.85, error))
    assert mean_over([{}] * 3, tables, "auroc", ["a", "c"]) is None and mean_over([{}] * 3, tables, "auroc", []) is None


def test_a_mean_of_all_right_is_not_certain():
    """40 of 40 fakes found in both subsets: the interval is Wilson's of 40 of 40, not a point."""
    low, high = wilson(1.0, 40)
    metrics = {"subsets": {name: {"f_acc": 1.0, "f_acc_low": low, "f_acc_high": high} for name in "ab"}}
    table = resampled({"f_acc/a": 1.0, "f_acc/b": 1.0}, 0, noise=0.0)
    found = mean_over([metrics], [table], "f_acc", ["a", "b"])
    assert (found.mean, found.low, found.high) == (1.0, pytest.approx(low), pytest.approx(1.0)) and low < 0.92


def test_the_table_says_what_is_on_which_side():
    found = releases(index_of([*TRAIN, ("test", "sd", 1, T), ("test", "new", 1, NEW), ("test", "unknown", 1, None)]))
    numbers = {"auroc/sd": 0.9, "auroc/new": 0.7, "f_acc/sd": 0.6, "f_acc/new": 0.4}
    tables = {"ours": [resampled(numbers, seed) for seed in range(3)], "theirs": [resampled(numbers, 9)]}
    summary = {f"ours-{seed}": {} for seed in range(3)} | {"theirs": {}}
    table = releases_table(found, summary, tables, frozenset({"theirs"}))
    assert [column.key for column in table.columns] == ["detector", "auroc_until", "auroc_after", "f_acc_until", "f_acc_after"]
    (row,) = table.rows
    assert [row[0], *(cell.mean for cell in row[1:])] == pytest.approx(["ours", 0.9, 0.7, 0.6, 0.4])
    for words in ("until 2022-08-22: sd (2022-08-22)", "after 2022-08-22: new (2023-03-15)", "left out", "unknown"):
        assert words in table.note
