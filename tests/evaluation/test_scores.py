"""Reading scores: the validation images never reach a number of the test, and no degradation lacks an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nullscope.core.contracts import CLEAN, SCORES, ContractError
from nullscope.evaluation.protocol import evaluate
from nullscope.evaluation.scores import check_complete, read_clean_scores, read_test_scores, read_val_scores, with_origins
from nullscope.tables.parquet import write_table

NONE_SEEN: frozenset[str] = frozenset()


def rows(split: str, count: int, degradation: str = CLEAN, logit: float = 1.0) -> list[dict]:
    return [
        {"image_id": f"{split} {at}", "split": split, "subset": "ab"[at % 3 > 0], "label": at % 2, "degradation": degradation}
        | {"logit": logit * (2 * (at % 2) - 1) * (1 + at)}
        for at in range(count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Validation images that are all called wrong stand among test images that are all called right."""
    found = rows("val", 8, logit=-9.0) + rows("test", 12) + rows("val", 8, "jpeg_75") + rows("test", 12, "jpeg_75", -1.0)
    write_table(tmp_path / "x-0.parquet", pa.Table.from_pylist(found, SCORES), SCORES)
    return tmp_path / "x-0.parquet"


def test_only_the_test_split_is_read(path):
    table = read_test_scores(path)
    assert set(table["split"].to_pylist()) == {"test"} and len(table) == 24
    val = read_val_scores(path)
    assert set(val["split"].to_pylist()) == {"val"} and set(val["degradation"].to_pylist()) == {CLEAN} and len(val) == 8
    clean = read_test_scores(path, clean_only=True)
    assert set(clean["degradation"].to_pylist()) == {CLEAN} and clean["image_id"].to_pylist() == [
        f"test {at}" for at in range(12)
    ]


def test_no_number_of_the_test_knows_the_validation_images(path):
    found = evaluate(read_test_scores(path), NONE_SEEN)
    assert (found["n_real"], found["n_fake"], found["acc"], found["auroc"]) == (6, 6, 1.0, 1.0)
    assert found["degradations"]["jpeg_75"]["acc"] == 0.0
    arrays = read_clean_scores(path, frozenset({"b"}))
    assert ((arrays.logit_N > 0) == arrays.is_fake_N).all() and len(arrays.logit_N) == 12
    np.testing.assert_array_equal(arrays.is_seen_N, [at % 3 > 0 for at in range(12)])


def test_a_table_with_validation_rows_is_not_evaluated(path):
    table = pa.Table.from_pylist(rows("test", 4) + rows("val", 1), SCORES)
    with pytest.raises(ValueError, match=r"expected rows of the split 'test' only, found \['test', 'val'\]"):
        evaluate(table, NONE_SEEN)


def index_of(images: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([{key: row[key] for key in ("image_id", "subset", "label")} for row in images])


def test_every_degradation_has_all_images(path):
    table, index = read_test_scores(path), index_of(rows("test", 12))
    check_complete(table, index, path)
    check_complete(table.take(np.random.default_rng(0).permutation(len(table))), index, path)
    with pytest.raises(ContractError, match=r"the 13 test images .* found 12 of the degradation 'none': 1 are missing, 0 are"):
        check_complete(table, index_of(rows("test", 13)), path)
    with pytest.raises(ContractError, match="found 11 of the degradation 'jpeg_75': 1 are missing"):
        check_complete(table.slice(0, 23), index, path)


def test_origins_are_joined_by_image_subset_and_label(path):
    """In any order of the scores, and of every degradation."""
    table = read_test_scores(path)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    listed = rows("test", 12)
    more = [{"source_of_real": None if at % 2 else f"source {at}", "group": None} for at in range(12)]
    index = pa.Table.from_pylist(
        [{key: row[key] for key in ("image_id", "subset", "label")} | own for row, own in zip(listed, more, strict=True)],
        pa.schema([*index_of(listed).schema, pa.field("source_of_real", pa.string()), pa.field("group", pa.string())]),
    )
    found = with_origins(shuffled, index)
    assert found.drop_columns("source_of_real").equals(shuffled), "without a group nothing is grouped"
    for row in found.to_pylist():
        at = int(row["image_id"].split()[1])
        assert row["source_of_real"] == more[at]["source_of_real"]
    grouped = index.set_column(4, "group", pa.array(["p"] * 3 + [None] * 9))
    own = {row["image_id"]: row["group"] for row in with_origins(shuffled, grouped).to_pylist()}
    assert own == {f"test {at}": "p" if at < 3 else f"test {at}" for at in range(12)}


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("label", lambda cells: [1 - cell for cell in cells]),
        ("image_id", lambda cells: [cells[0]] * len(cells)),
        ("subset", lambda cells: ["b"] * len(cells)),
    ],
)
def test_scores_are_joined_by_image_not_by_their_number(path, column, change):
    """As many rows as the index has, but of other images, or with labels that the index does not give them."""
    table, index = read_test_scores(path, clean_only=True), index_of(rows("test", 12))
    at = table.column_names.index(column)
    changed = table.set_column(
        at, table.schema.field(column), pa.array(change(table[column].to_pylist()), table.schema.types[at])
    )
    with pytest.raises(ContractError, match="are of other images or have another label"):
        check_complete(changed, index, path)
