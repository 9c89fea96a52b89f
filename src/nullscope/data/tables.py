"""Parquet tables between the stages: one way to write them, so that equal rows are equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nullscope.contracts import ContractError, check_schema
from nullscope.files import replacing

ROW_GROUP = 65_536  # rows; part of the format: another value is other bytes


def write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write ``table`` to ``path`` atomically. Raises `ContractError` unless its columns are those of ``schema``."""
    write_batches(path, table.to_batches(max_chunksize=ROW_GROUP), schema.with_metadata(table.schema.metadata))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a stream of record batches atomically, in memory of one batch; return the number of rows.

    Embeddings (lists of float) are stored without a dictionary and split by byte, which makes them smaller than raw.
    """
    floats = [f"{field.name}.list.element" for field in schema if pa.types.is_fixed_size_list(field.type)]
    words = [field.name for field in schema if f"{field.name}.list.element" not in floats]
    rows = 0
    with replacing(path) as partial, pq.ParquetWriter(
        partial, schema, compression="zstd", use_dictionary=words, use_byte_stream_split=floats or False
    ) as writer:
        for batch in batches:
            check_schema(batch.schema, schema, path)
            writer.write_batch(batch, row_group_size=ROW_GROUP)
            rows += batch.num_rows
    return rows


def read_table(path: Path, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """Read ``path``, whole or some ``columns``. Raises `ContractError` if it is missing or not of ``schema``."""
    with _open(path) as file:
        check_schema(file.schema_arrow, schema, path)
        return file.read(columns=columns)


def read_batches(path: Path, schema: pa.Schema, *, rows: int = ROW_GROUP) -> Iterator[pa.RecordBatch]:
    """Yield the rows of ``path`` in batches of at most ``rows``, in order, in constant memory."""
    with _open(path) as file:
        check_schema(file.schema_arrow, schema, path)
        yield from file.iter_batches(batch_size=rows)


def read_schema(path: Path) -> pa.Schema:
    """Return the schema of ``path`` with its metadata. Raises `ContractError` if it is not a Parquet file."""
    with _open(path) as file:
        return file.schema_arrow


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it") from None
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path} is not a Parquet file ({error}); delete it and run `dvc repro`") from None
