"""What the stages take from the index: the distinct images, in the order of their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import pyarrow as pa

from nullscope.tables.distinct import distinct_rows
from nullscope.tables.index import INDEX
from nullscope.tables.parts import SCRATCH
from nullscope.tables.spill import Spill


@dataclass(frozen=True)
class Item:
    """One distinct image of the index: where it lies and what it is."""

    image_id: str
    label: int
    source: Path  # or <archive>::<member>
    format: str  # Pillow's name of the file format


COLUMNS = ("image_id", "label", "source", "format")  # of an `Item`
BATCH = 256  # rows read from the disk at a time


class Listing(Sequence[Item]):
    """Items that lie on the disk. A slice holds two numbers; its rows are read when it is iterated over.

    When it is sent to another process, it arrives there as a list.
    """

    def __init__(self, rows: Spill, root: Path, start: int, stop: int) -> None:
        self._rows, self._root, self._start, self._stop = rows, root, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> Listing: ...

    def __getitem__(self, place: int | slice) -> Item | Listing:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            assert step == 1, f"a slice of a listing has a step of 1, found {step}"
            return Listing(self._rows, self._root, self._start + start, self._start + max(start, stop))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        return next(iter(self[place : place + 1]))

    def __iter__(self) -> Iterator[Item]:
        for number in range(self._start // BATCH, -(-self._stop // BATCH)):
            first = number * BATCH
            batch = self._rows[number][max(self._start - first, 0) : min(self._stop - first, BATCH)]
            for image_id, label, source, kind in zip(*batch.to_pydict().values(), strict=True):
                yield Item(image_id, label, self._root / source, kind)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __reduce__(self) -> tuple[type[list], tuple[list[Item]]]:
        return list, (list(self),)


def distinct_images(index: Path, root: Path, split: str | None = None) -> Listing:
    """Return one item per distinct image of a split (None: of all), sorted by id. Of equal files, the first is taken."""
    schema = pa.schema([INDEX.field(name) for name in COLUMNS])
    rows = Spill(distinct_rows(index, split, COLUMNS), schema, BATCH, SCRATCH)
    return Listing(rows, root, 0, rows.total)
