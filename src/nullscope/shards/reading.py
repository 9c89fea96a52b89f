"""Reading a folder of shards, which `nullscope.shards.writing` has written and describes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webdataset.tariterators import group_by_keys

from nullscope.core.contracts import ContractError
from nullscope.shards.tar_members import members
from nullscope.shards.tars import entries, opened, require


@dataclass(frozen=True)
class Shard:
    """One tar of a folder of shards."""

    path: Path
    samples: int


def list_shards(directory: Path) -> list[Shard]:
    """Return the shards of a folder ``<kind>/<split>``, none where the split is ``val`` and holds no image.

    Raises `ContractError` if there are none of another split, or one is missing where they lie (`tars`).
    """
    require(directory)
    return [Shard(directory / entry.name, entry.samples) for entry in entries(directory).values()]


def read_shard(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield (image_id, label, bytes of the image) of every sample of a tar, in order.

    Raises `ContractError` on a bad sample and, after the last one, on a tar that was streamed and is not the listed one (`tars`).
    """
    with opened(path) as file:  # webdataset's own opener leaves the closing to the garbage collector
        for sample in group_by_keys(members(file, str(path))):
            contents = [name for name in sample if not name.startswith("__") and name != "json"]
            if len(contents) != 1 or "json" not in sample:
                raise ContractError(f"{path}: sample {sample['__key__']!r} holds {sorted(sample)}; expected image and json")
            facts = json.loads(sample["json"])
            yield facts["image_id"], facts["label"], sample[contents[0]]


def decode_mosaic(data: bytes) -> NDArray[np.uint8]:
    """Return the (M, M, 3) uint8 mosaic of a sample of the kind ``patches``, read-only.

    The format is named because Pillow would try its other readers first, which takes a sixth of the time of a small mosaic.
    """
    return np.asarray(Image.open(io.BytesIO(data), formats=("WEBP",)))
