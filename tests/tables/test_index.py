"""The index as a table, and scores joined with it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from nullscope.core.contracts import SCORES, ContractError, check_schema
from nullscope.scoring import LOGITS
from nullscope.tables.index import INDEX, join_index
from nullscope.tables.parquet import write_table


def index_of(path, rows):
    """An index of (image_id, split, subset) rows."""
    more = {"generator": "g", "label": 1, "width": 9, "height": 9, "format": "PNG", "bytes": 9}
    named = [dict(zip(("image_id", "split", "subset"), row, strict=True)) for row in rows]
    listed = [{**row, **more, "source": f"{at}.png"} for at, row in enumerate(named)]
    write_table(path, pa.Table.from_pylist(listed, INDEX), INDEX)
    return path


ROWS = [("a", "test", "x"), ("a", "test", "y"), ("b", "test", "x"), ("a", "val", "x"), ("c", "val", "x"), ("d", "train", "x")]


def test_the_index_gives_every_image_of_a_split_its_rows(tmp_path):
    """An image in two subsets has two rows, and one that leaked into two splits is scored in each."""
    index = index_of(tmp_path / "index.parquet", ROWS)
    for split, logit, expected in (
        ("test", {"b": 2.0, "a": 1.0}, [("a", "x", 1.0), ("a", "y", 1.0), ("b", "x", 2.0)]),
        ("val", {"a": -1.0, "c": 3.0}, [("a", "x", -1.0), ("c", "x", 3.0)]),
    ):
        found = join_index(pa.table([list(logit), list(logit.values())], schema=LOGITS), index, split, "blur_1")
        check_schema(found.schema, SCORES, "scores")
        assert set(found["split"].to_pylist()) == {split} and set(found["degradation"].to_pylist()) == {"blur_1"}
        assert list(zip(*(found[name].to_pylist() for name in ("image_id", "subset", "logit")), strict=True)) == expected


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a"], "lists 2 images of the split test, the shards hold 1"),
        (["a", "b", "b"], "scored twice"),
        (["a", "b", "c"], "hold 3"),
    ],
)
def test_images_and_logits_that_do_not_match_are_an_error(tmp_path, ids, said):
    index = index_of(tmp_path / "index.parquet", ROWS)
    with pytest.raises(ContractError, match=said):
        join_index(pa.table([ids, [0.0] * len(ids)], schema=LOGITS), index, "test")
