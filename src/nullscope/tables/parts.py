"""A table made piece by piece: each rank computes its share of the work, a killed stage finds what it had finished.

Pieces are Parquet files in a scratch folder whose name holds a hash of everything they depend on; no piece of another input is
ever taken for a finished one.
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
    """Return the scratch folder of a stage for these inputs: files and folders by content, anything else by its text."""
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
    """Some items of a sequence, each taken out of it when it is asked for: work may be longer than memory."""

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
