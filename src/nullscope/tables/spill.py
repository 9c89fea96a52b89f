"""Rows on the disk, in a file without a name, of which any batch can be read by its number."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa


class Spill(Sequence[pa.RecordBatch]):
    """Batches of ``rows`` rows each but for the last, in the order of a stream.

    The file is deleted when the last process that has it open ends. Forked workers can read it too: every read names its place
    in the file, so they do not disturb each other.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int, folder: Path) -> None:
        """Drain ``batches`` into a file in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        try:
            self.total = 0
            with pa.OSFile(name, "wb") as file, pa.ipc.new_file(file, schema) as writer:
                for batch in recut(batches, schema, rows):
                    writer.write_batch(batch)
                    self.total += batch.num_rows
            self._reader = pa.ipc.open_file(pa.OSFile(name))
        finally:
            os.unlink(name)

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._reader.num_record_batches

    def __getitem__(self, number: int) -> pa.RecordBatch:
        """Read one batch."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._reader.get_batch(number)


def recut(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a stream in batches of exactly ``rows``, the last one: the rest."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while count + batch.num_rows >= rows:
            yield _one([*held, batch.slice(0, rows - count)], schema)
            batch, held, count = batch.slice(rows - count), [], 0
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
    if held:
        yield _one(held, schema)


def _one(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    [batch] = pa.Table.from_batches(batches).cast(schema).combine_chunks().to_batches()
    return batch
