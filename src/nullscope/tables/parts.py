"""A table made of parts: each rank computes its share of them, and a stage that was killed goes on with those it lacks.

Parts are Parquet files in a scratch folder. Its name holds a hash of everything that they depend on, so parts of other inputs are
never used.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from nullscope.core import ranks
from nullscope.core.files import sha256
from nullscope.tables.parquet import read_table, write_table

T = TypeVar("T")
SCRATCH = Path(".nullscope")  # beside dvc.yaml, never in git or DVC


def scratch(stage: str, *inputs: object) -> Path:
    """Return the scratch folder of a stage for these inputs: files by content, anything else by its text."""
    digest = hashlib.sha256()
    for value in inputs:
        text = sha256(value) if isinstance(value, Path) and value.is_file() else repr(value)
        digest.update(text.encode() + b"\0")
    return SCRATCH / stage / digest.hexdigest()[:16]


def in_parts(
    work: Sequence[T], compute: Callable[[Sequence[T]], Iterator[pa.Table]], schema: pa.Schema, folder: Path
) -> Iterator[pa.Table] | None:
    """Return the tables of all items of ``work``, in order, on rank 0; None on the other ranks, which are done.

    ``compute`` gets this rank's unfinished items and yields a table of ``schema`` for each of them, in order. ``folder`` is the
    stage's `scratch`; it is removed once all tables have been taken.
    """
    paths = [folder / f"{number:06d}.parquet" for number in range(len(work))]
    pending = [number for number in ranks.mine(range(len(work))) if not paths[number].exists()]
    for number, table in zip(pending, compute(_Chosen(work, pending)), strict=True):
        write_table(paths[number], table, schema)
    ranks.barrier()
    return _read(paths, schema, folder) if ranks.rank() == 0 else None


class _Chosen(Sequence[T]):
    """Some items of a sequence. Each is read when it is asked for, because all of them may not fit into memory."""

    def __init__(self, work: Sequence[T], numbers: Sequence[int]) -> None:
        self._work, self._numbers = work, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> T:
        return self._work[self._numbers[place]]


def _read(paths: list[Path], schema: pa.Schema, folder: Path) -> Iterator[pa.Table]:
    for path in paths:
        yield read_table(path, schema)
    shutil.rmtree(folder, ignore_errors=True)
