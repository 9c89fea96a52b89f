"""The distinct images of the index, in the order of their ids, as a stream: memory does not grow with them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_batches
from nullscope.tables.parts import SCRATCH
from nullscope.tables.sorting import Sorter, whole_groups


def distinct_rows(index: Path, split: str | None, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield ``columns``, the first of them ``image_id``, of a split (None: of all); of each image the first row."""
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        sorter = Sorter(pa.schema([INDEX.field(name) for name in columns]), ["image_id"], Path(folder) / "rows")
        for batch in read_batches(index, INDEX):
            wanted = batch if split is None else batch.filter(pc.equal(batch["split"], split))
            sorter.add(wanted.select(columns).replace_schema_metadata())
        for table in whole_groups(sorter.sorted(), "image_id"):
            yield from _first_of_each(table.combine_chunks()).to_batches()


def _first_of_each(table: pa.Table) -> pa.Table:
    ids = table["image_id"].combine_chunks()
    other = pc.not_equal(ids[1:], ids[:-1])
    return table.filter(pa.concat_arrays([pa.array([True]), other]))
