"""Rows sorted on the disk come out as those sorted in memory do, in memory that does not grow."""

from __future__ import annotations

import csv
import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nullscope.core.contracts import SPLITS, image_id
from nullscope.images.decoder import Facts
from nullscope.sources import index
from nullscope.sources.dataset import DatasetParams
from nullscope.sources.folders import Found
from nullscope.sources.survey import Survey
from nullscope.tables import sorting
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import write_table
from nullscope.tables.sorting import Sorter, whole_groups

WORDS = pa.schema([pa.field("word", pa.string()), pa.field("number", pa.int8()), pa.field("row", pa.int64())])


def rows_of(count: int, seed: int = 0) -> list[dict]:
    """Rows with many equal keys, and words of every length of UTF-8."""
    rng = random.Random(seed)
    words = ["", "a", "aa", "b", "é", "z", "\U0001f4f7", "￼"]
    return [{"word": rng.choice(words), "number": rng.randint(-2, 2), "row": row} for row in range(count)]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_the_order_is_that_of_a_stable_sort_in_memory(count, tmp_path, monkeypatch):
    """Runs of 64 rows, blocks of 4, three runs merged at a time: up to three passes."""
    for name, value in (("RUN", 64), ("BLOCK", 4), ("FAN_IN", 3)):
        monkeypatch.setattr(sorting, name, value)
    rows = rows_of(count)
    sorter = Sorter(WORDS, ["word", "number"], tmp_path / "sorting")
    for start in range(0, count, 7):
        sorter.add_rows(rows[start : start + 7])
    found = [row for batch in sorter.sorted() for row in batch.to_pylist()]
    assert found == sorted(rows, key=lambda row: (row["word"].encode(), row["number"], row["row"]))
    assert sorter.rows == count and not list((tmp_path / "sorting").iterdir())


def test_groups_are_never_parted():
    batches = pa.Table.from_pylist([{"key": key} for key in "aabbbbbbbcd"]).to_batches(max_chunksize=2)
    assert ["".join(table["key"].to_pylist()) for table in whole_groups(batches, "key")] == ["aa", "bbbbbbb", "c", "d"]
    assert list(whole_groups([], "key")) == []


def verdicts_of(count: int) -> list:
    """What the workers say of so many files: images repeated within a split and across them, contradictions, refusals."""
    rng = random.Random(1)
    found = []
    for number in range(count):
        folder, label = rng.choice(["a", "b", "b/cat"]), rng.randint(0, 1)
        item = Found(f"{folder}/{'01'[label]}_x/{rng.randint(0, 10**6)}-{number}.png", folder, label)
        same = rng.randint(0, count // 2) * 2 + (label if rng.random() < 0.99 else 1 - label)
        facts = Facts(100, 100, "PNG", 1000 + same, None)
        found.append((item, f"damaged {number % 3}" if rng.random() < 0.1 else (image_id(str(same).encode()), facts)))
    return found


def in_memory(params: DatasetParams, verdicts: list) -> tuple[pa.Table, list[tuple[str, str]], dict]:
    """The index as it was made before there was a sorter: rows, refusals, counts."""
    good = [(item, *verdict) for item, verdict in verdicts if not isinstance(verdict, str)]
    refused = [(item.source, verdict) for item, verdict in verdicts if isinstance(verdict, str)]
    rows = pa.Table.from_pylist([index._row(params, *each) for each in good], INDEX)
    labels: dict[str, set[int]] = {}
    for row in rows.to_pylist():
        labels.setdefault(row["image_id"], set()).add(row["label"])
    both = pa.array([key for key, held in labels.items() if len(held) == 2], pa.string())
    mask = pc.is_in(rows["image_id"], value_set=both)
    words = {0: "fake", 1: "real"}
    refused += [
        (row["source"], f"contradictory label: the same bytes are also listed as {words[row['label']]}")
        for row in rows.filter(mask).to_pylist()
    ]
    rows = rows.filter(pc.invert(mask)).sort_by([(key, "ascending") for key in index.SORT_KEYS])
    splits: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        splits.setdefault(row["image_id"], set()).add(row["split"])
    leaked = sum({"train", "test"} <= held for held in splits.values())
    return rows, sorted(refused), {"images": len(rows), "duplicates": len(rows) - len(splits), "leakage": leaked}


def test_the_index_is_the_one_that_was_sorted_in_memory_to_the_byte(tmp_path, monkeypatch):
    for name, value in (("RUN", 500), ("BLOCK", 16), ("FAN_IN", 3)):
        monkeypatch.setattr(sorting, name, value)
    patterns = {"train": ["a", "b"], "test": ["b", "b/*"]}
    params = DatasetParams(root=str(tmp_path), name="x", **patterns, train_fraction=0.5, val_fraction=0.2, max_pixels=10**6)
    verdicts = verdicts_of(6000)
    monkeypatch.setattr(index, "survey", lambda params: Survey())
    monkeypatch.setattr(index, "_findings", lambda params, workers: iter(verdicts))
    out = {"index_path": tmp_path / "index.parquet", "rejects_path": tmp_path / "rejects.csv"}
    counts = index.build_index(params, min_side_px=32, workers=1, **out)
    rows, refused, expected = in_memory(params, verdicts)
    assert expected["leakage"] > 10 and expected["duplicates"] > 100
    assert any("contradictory" in reason for _, reason in refused)
    write_table(tmp_path / "expected.parquet", rows.replace_schema_metadata({"dataset": "x"}), INDEX)
    assert (tmp_path / "index.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    with open(tmp_path / "rejects.csv", encoding="utf-8", newline="") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == refused
    assert {key: counts[key] for key in expected} == expected and counts["refused"] == len(refused)
    assert sum(n for split in SPLITS for subset in counts[split].values() for n in subset.values()) == len(rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.parquet", "index.parquet", "rejects.csv"]


def test_an_error_leaves_nothing_of_the_sorting_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "survey", lambda params: Survey())
    monkeypatch.setattr(index, "_findings", lambda params, workers: (1 / 0 for _ in range(1)))
    (tmp_path / ".index.parquet.sorting").mkdir()  # a killed process left it
    params = DatasetParams(root=str(tmp_path), name="x", train=["a"], test=["b"], train_fraction=0.5, max_pixels=10**6)
    with pytest.raises(ZeroDivisionError):
        index.build_index(
            params, min_side_px=32, index_path=tmp_path / "index.parquet", rejects_path=tmp_path / "r.csv", workers=1
        )
    assert not list(tmp_path.iterdir())
