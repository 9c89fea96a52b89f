"""What the stages take from the index: the distinct images, in the order of their ids."""

from __future__ import annotations

from pathlib import Path

from nullscope.contracts import INDEX
from nullscope.data.shards import Item
from nullscope.data.tables import read_table


def distinct_images(index: Path, root: Path, split: str | None = None) -> list[Item]:
    """Return one item per distinct image of a split (None: of all), sorted by id; of equal files the first source stands."""
    table = read_table(index, INDEX, columns=["image_id", "split", "label", "source", "format"])
    items: dict[str, Item] = {}
    for row in table.to_batches():
        columns = row.to_pydict()
        for image_id, of, label, source, kind in zip(*columns.values(), strict=True):
            if split in (None, of):
                items.setdefault(image_id, Item(image_id, label, root / source, kind))
    return [items[image_id] for image_id in sorted(items)]
