"""Manifests: a table in place of folders."""

from __future__ import annotations

import os
from datetime import date
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


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("kind", [pa.string(), pa.date32(), pa.timestamp("ns")])
def test_where_an_image_is_from_is_read(tmp_path, suffix, kind):
    """A day may be text or a date, with or without a time behind it, as pandas writes them."""
    rows = {"source": ["a", "b"], "label": ["real", "fake"], "subset": ["s", "s"], "source_of_real": ["phone", None]}
    rows |= {"group": ["p1", "p1"], "released": pa.array([None, "2022-08-22"]).cast(kind)}
    assert list(read_manifest(written(tmp_path / f"m.{suffix}", rows))) == [
        Found("a", "all/s", 0, source_of_real="phone", group="p1"),
        Found("b", "all/s", 1, group="p1", released=date(2022, 8, 22)),
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
        ({"released": "autumn 2022"}, "x.png", "released 'autumn 2022'; expected a day such as 2022-08-22, or nothing"),
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
        ("m.csv", "", "found none"),
        ("m.parquet", "no parquet", "cannot be read as a table"),
        ("m.csv", "source;label;subset\nx;real;s\n", "it is separated by ';': save it with commas"),
        ("m.csv", "source,label,subset,label\nx,real,s,fake\n", "the column label is there 2 times; expected it once"),
        ("m.csv", 'source,label,subset\n"x,real,s\ny,real,s\n', "is a quote not closed"),
        ("m.csv", "source,label,subset\nx,real,é\n".encode("latin-1"), r"is not text in UTF-8 \(byte 27\): save it as UTF-8"),
        ("m.csv", "source,label,subset\n".encode("utf-16"), "is not text in UTF-8"),
    ],
)
def test_a_file_that_is_no_manifest_says_why(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=words):
        list(read_manifest(tmp_path / name))


def test_a_manifest_that_is_no_file_is_not_opened(tmp_path):
    """A pipe would hang, and a folder brings another error on every system."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, words in (("pipe.csv", "a named pipe"), ("folder.csv", "a folder")):
        with pytest.raises(DatasetError, match=f"cannot be read as a table: .*{words}"):
            list(read_manifest(tmp_path / name))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_line_breaks_are_read_whatever_the_size(tmp_path, end):
    """A column of prompts, beyond any block that a reader may take at once, behind a byte-order mark."""
    prompt = '"a cat,\n""on"" a mat\r\n' + "very " * 400 + '"'
    rows = [f"{k}.png,real,s,{prompt}" for k in range(2000)]
    (tmp_path / "m.csv").write_bytes(("\ufeff" + end.join(["source,label,subset,prompt", *rows]) + end).encode())
    assert [item.source for item in read_manifest(tmp_path / "m.csv")] == [f"{k}.png" for k in range(2000)]


def test_columns_that_are_not_needed_do_not_matter(tmp_path):
    """Empty at first, numbers later, then text; with one name for two of them."""
    rows = [f"{k}.png,real,s,{'' if k < 5000 else k if k < 9000 else 'seven'},x" for k in range(10_000)]
    (tmp_path / "m.csv").write_text("\n".join(["source,label,subset,note,note", *rows]))
    assert len([item for item in read_manifest(tmp_path / "m.csv") if isinstance(item, Found)]) == 10_000


@pytest.mark.parametrize("name", ["NA", "null", "nan", "None", "True", "007", "1e3", "a+b (50%)", "réel", "real"])
def test_a_subset_is_text_whatever_it_is_called(tmp_path, name):
    (tmp_path / "m.csv").write_text(f"source,label,subset\nx.png,real,{name}\n", encoding="utf-8")
    pq.write_table(pa.table({"source": ["x.png"], "label": [0], "subset": [name]}), tmp_path / "m.parquet")
    for suffix in ("csv", "parquet"):
        assert list(read_manifest(tmp_path / f"m.{suffix}")) == [Found("x.png", f"all/{name}", 0)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x.png,real", "2 cells where the header names 3 columns"),
        ("x.png,real,s,t", "4 cells where the header names 3 columns"),
        ("a\0b.png,real,s", "a source with a NUL"),
        ("file:///x.png,real,s", "expected a path relative to dataset.root"),
        ("https://host/x.png,real,s", "expected a path relative to dataset.root"),
        ("/etc/x.png,real,s", "expected a path relative to dataset.root"),
        ("x.png,yes,s", "label 'yes'; expected real or fake"),
    ],
)
def test_one_bad_row_is_refused_and_the_others_are_read(tmp_path, row, reason):
    (tmp_path / "m.csv").write_text(f"source,label,subset\na.png,REAL,s\n{row}\n\nb.png,1.0,s\n")
    first, refused, last = read_manifest(tmp_path / "m.csv")
    assert (first, last) == (Found("a.png", "all/s", 0), Found("b.png", "all/s", 1))
    assert isinstance(refused, Refused) and reason in refused.reason


def test_needed_columns_of_a_parquet_are_text_or_numbers(tmp_path):
    rows = {"source": pa.array(["x.png"]).dictionary_encode(), "label": [1.0], "subset": [14], "vector": [[0.5, 0.5]]}
    assert list(read_manifest(written(tmp_path / "m.parquet", rows))) == [Found("x.png", "all/14", 1)]
    with pytest.raises(DatasetError, match="expected text in the column source, found binary"):
        list(read_manifest(written(tmp_path / "m.parquet", {**rows, "source": [b"x.png"]})))
