"""Rows sorted on the disk, in the memory of `RUN` rows, however many there are.

Rows are collected into runs. Each run is sorted and written as an Arrow file, and the files are merged. The order is that of
Arrow's `sort_by`; equal rows keep the order in which they came.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

RUN = 2**17  # rows sorted in memory: of the index 35 MB, three times while they are sorted
BLOCK = 4096  # rows of a run that are held while it is merged
FAN_IN = 64  # runs merged at a time: 8 million rows in one pass, 500 million in two
PLACE = "_place"  # the column that keeps equal rows in their order


class Sorter:
    """Takes rows of one schema, gives them back in the order of ``keys``."""

    def __init__(self, schema: pa.Schema, keys: Sequence[str], folder: Path) -> None:
        """``folder`` is for this sorter alone; whoever made it deletes it."""
        folder.mkdir(parents=True)
        self.schema, self.keys, self.folder, self.rows = schema, [*keys, PLACE], folder, 0
        self._waiting: list[pa.RecordBatch] = []
        self._files: list[Path] = []
        self._written = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the rows of ``batch``."""
        if not batch.num_rows:
            return
        place = pa.array(np.arange(self.rows, self.rows + batch.num_rows))
        self._waiting.append(batch.append_column(PLACE, place))
        self.rows += batch.num_rows
        if sum(waiting.num_rows for waiting in self._waiting) >= RUN:
            self._spill()

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take ``rows``, dictionaries by the names of the columns."""
        self.add(pa.RecordBatch.from_pylist(list(rows), self.schema))

    def sorted(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order. Nothing can be added behind them."""
        self._spill()
        while len(self._files) > FAN_IN:
            groups = [self._files[start : start + FAN_IN] for start in range(0, len(self._files), FAN_IN)]
            self._files = [self._write(_merged(group, self.keys)) for group in groups]
        for table in _merged(self._files, self.keys):
            yield from table.select(self.schema.names).to_batches()

    def _spill(self) -> None:
        if self._waiting:
            run, self._waiting = pa.Table.from_batches(self._waiting), []
            self._files.append(self._write([_in_order(run, self.keys)]))

    def _write(self, tables: Iterable[pa.Table]) -> Path:
        path = self.folder / f"{self._written:06d}.arrow"
        self._written += 1
        schema = self.schema.append(pa.field(PLACE, pa.int64()))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for table in tables:
                writer.write_table(table.combine_chunks(), max_chunksize=BLOCK)
        return path


def whole_groups(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.Table]:
    """Yield the rows of a stream, sorted by ``key``, in tables that hold all rows of each of their keys."""
    held = None
    for batch in batches:
        table = pa.Table.from_batches([batch] if held is None else [*held.to_batches(), batch])
        cut = pc.index(table[key], table[key][-1]).as_py()
        if cut:
            yield table.slice(0, cut)
        held = table.slice(cut)
    if held is not None:
        yield held


def _merged(files: Sequence[Path], keys: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of some runs in order; delete every file once its rows are taken.

    One block of every run is in memory. The smallest of their last rows is the bound: no row that is still on the disk comes
    before it, so all rows up to the bound can be sorted and yielded.
    """
    runs = [_blocks(file) for file in files]
    held = {number: next(run) for number, run in enumerate(runs)}
    while held:
        bound = min(_key(block, block.num_rows - 1, keys) for block in held.values())
        taken = []
        for number, block in list(held.items()):
            cut = bisect_right(range(block.num_rows), bound, key=lambda row, block=block: _key(block, row, keys))
            taken.append(block.slice(0, cut))
            rest = block.slice(cut) if cut < block.num_rows else next(runs[number], None)
            if rest is None:
                del held[number]
            else:
                held[number] = rest
        yield _in_order(pa.Table.from_batches(taken), keys)


def _blocks(file: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(file)) as opened, pa.ipc.open_file(opened) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    file.unlink()


def _key(block: pa.RecordBatch, row: int, keys: Sequence[str]) -> tuple[Any, ...]:
    """Return a row's key; text in Python compares as its UTF-8 bytes do in Arrow."""
    return tuple(block[key][row].as_py() for key in keys)


def _in_order(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    return table.sort_by([(key, "ascending") for key in keys])
