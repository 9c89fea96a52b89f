"""Manifests: a table in place of folders."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from nullscope.sources.dataset import DatasetError
from nullscope.sources.folders import Found, Refused
from nullscope.sources.manifest import BATCH, read_manifest

ROWS = {
    "source": ["x.png", "b.zip::y.png", "z.png", "v.png"],
    "label": ["real", "1", "FAKE", "0"],
    "subset": ["s", "s", "007", "s"],
    "split": ["train", "test", None, "val"],
    "generator": [None, "sd", None, None],
}


def written(path: Path, rows: dict[str, list]) -> Path:
    table = pa.table(rows)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_become_files_of_a_split_and_subset(tmp_path, suffix):
    assert list(read_manifest(written(tmp_path / f"m.{suffix}", ROWS))) == [
        Found("x.png", "train/s", 0),
        Found("b.zip::y.png", "test/s", 1, "sd"),
        Found("z.png", "all/007", 1),
        Found("v.png", "val/s", 0),
    ]


def test_numbers_as_labels_and_more_columns_are_read(tmp_path):
    rows = {"width": [1, 2], "label": [0, 1], "source": ["a", "b"], "subset": [14, 15]}
    for suffix in ("csv", "parquet"):
        found = list(read_manifest(written(tmp_path / f"m.{suffix}", rows)))
        assert found == [Found("a", "all/14", 0), Found("b", "all/15", 1)]


@pytest.mark.parametrize(
    ("row", "source", "reason"),
    [
        ({"source": ""}, "m.csv, row 2", "a row without a source"),
        ({"label": "genuine"}, "x.png", "label 'genuine'; expected real or fake"),
        ({"label": None}, "x.png", "label ''"),
        ({"subset": "a/b"}, "x.png", "subset 'a/b'; expected a name without a slash"),
        ({"split": "valid"}, "x.png", "split 'valid'; expected train, val, test or nothing"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused(tmp_path, row, source, reason):
    values = {"source": "x.png", "label": "real", "subset": "s", "split": "train", **row}
    (refused,) = read_manifest(written(tmp_path / "m.csv", {key: [value] for key, value in values.items()}))
    assert isinstance(refused, Refused)
    assert refused.source == source
    assert reason in refused.reason


def test_long_manifests_come_in_batches(tmp_path):
    count = 2 * BATCH + 7
    rows = {"source": [f"{k}.png" for k in range(count)], "label": ["real"] * count, "subset": ["s"] * count}
    for suffix in ("csv", "parquet"):
        assert [item.source for item in read_manifest(written(tmp_path / f"m.{suffix}", rows))] == rows["source"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.csv", None, "nothing there"),
        ("m.txt", "source", "expected a table named"),
        ("m.csv", "source,label\nx,real\n", "expected the columns source, label, subset, found source, label"),
        ("m.csv", "", "cannot be read as a table"),
        ("m.parquet", "no parquet", "cannot be read as a table"),
        ("m.csv", "source,label,subset\nx,real\n", "cannot be read as a table"),
    ],
)
def test_a_file_that_is_no_manifest_says_why(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=words):
        list(read_manifest(tmp_path / name))
