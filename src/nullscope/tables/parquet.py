"""Parquet tables between the stages: one way to write them, so that equal rows are equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nullscope.core.contracts import ContractError, check_schema
from nullscope.core.files import replacing

ROW_GROUP = 65_536  # rows; part of the format: another value is other bytes


def write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write ``table`` to ``path`` atomically. Raises `ContractError` unless its columns are those of ``schema``."""
    if table.schema.metadata:  # empty metadata gives other bytes than no metadata
        schema = schema.with_metadata(table.schema.metadata)
    write_batches(path, table.to_batches(max_chunksize=ROW_GROUP), schema)


def write_batches(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a stream of record batches atomically, in memory of one batch; return the number of rows.

    Embeddings (lists of float) are stored without a dictionary and split by byte, which makes them smaller than raw.
    """
    floats = [f"{field.name}.list.element" for field in schema if pa.types.is_fixed_size_list(field.type)]
    words = [field.name for field in schema if f"{field.name}.list.element" not in floats]
    rows = 0
    with (
        replacing(path) as partial,
        pq.ParquetWriter(
            partial, schema, compression="zstd", use_dictionary=words, use_byte_stream_split=floats or False
        ) as writer,
    ):
        for group in _row_groups(batches, schema, path):
            writer.write_table(group, row_group_size=ROW_GROUP)
            rows += group.num_rows
    return rows


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> Iterator[pa.Table]:
    """Yield the rows in tables of exactly `ROW_GROUP`, the last one shorter: the bytes do not depend on the batches that came."""
    waiting, rows = [], 0
    for batch in batches:
        check_schema(batch.schema, schema, path)
        for field, column in zip(schema, batch.columns, strict=True):
            if column.null_count and not field.nullable:
                raise ContractError(f"{path}: column {field.name} holds {column.null_count} nulls; the contract allows none")
        while rows + batch.num_rows >= ROW_GROUP:
            waiting.append(batch.slice(0, ROW_GROUP - rows))
            yield pa.Table.from_batches(waiting, schema).combine_chunks()
            batch, waiting, rows = batch.slice(ROW_GROUP - rows), [], 0
        waiting.append(batch)
        rows += batch.num_rows
    if rows:
        yield pa.Table.from_batches(waiting, schema).combine_chunks()


def read_table(path: Path, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """Read ``path``, whole or some ``columns``. Raises `ContractError` if it is missing or not of ``schema``."""
    with _open(path) as file:
        check_schema(file.schema_arrow, schema, path)
        if unknown := set(columns or ()) - set(schema.names):
            raise ContractError(f"{path}: no column {', '.join(sorted(unknown))}; known: {', '.join(schema.names)}")
        return file.read(columns=columns)


def read_batches(path: Path, schema: pa.Schema, *, rows: int = ROW_GROUP) -> Iterator[pa.RecordBatch]:
    """Yield the rows of ``path`` in batches of at most ``rows``, in order, in constant memory."""
    with _open(path) as file:
        check_schema(file.schema_arrow, schema, path)
        for group in range(file.num_row_groups):  # one reader for all groups would keep the compressed bytes of each
            yield from file.iter_batches(batch_size=rows, row_groups=[group])


def read_schema(path: Path) -> pa.Schema:
    """Return the schema of ``path`` with its metadata. Raises `ContractError` if it is not a Parquet file."""
    with _open(path) as file:
        return file.schema_arrow


def vector_table(image_ids: Sequence[str] | pa.Array, rows_NK: NDArray[np.float32], schema: pa.Schema) -> pa.Table:
    """Return vectors under the ids of their images, of `contracts.text_schema` or `contracts.feature_schema`."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows_NK.reshape(-1)), rows_NK.shape[1])
    return pa.table([image_ids, vectors], schema=schema)


def vectors_of(table: pa.Table, column: str) -> NDArray[np.float32]:
    """Return the vectors of a table as an array of its own, (N, K)."""
    width = table.schema.field(column).type.list_size
    return table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width).copy()


def vector_width(path: Path, column: str) -> int:
    """Return K, the length of the vectors of ``path``; 0 where it holds no such column, which no schema allows."""
    found = read_schema(path)
    return getattr(found.field(column).type, "list_size", 0) if column in found.names else 0


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it") from None
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{path} is damaged or not a Parquet file ({error}); delete it and run `dvc repro`") from None
