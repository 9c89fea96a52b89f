"""Reading a folder of shards, which `nullscope.shards.writing` has written and describes."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    with opened(path) as file:
        files = ((*member["fname"].split(".", 1), member["data"]) for member in members(file, str(path)) if member)
        for key, group in itertools.groupby(files, key=lambda file: file[0]):
            sample = sorted((suffix != "json", suffix, data) for _, suffix, data in group)  # the json first
            if [is_image for is_image, *_ in sample] != [False, True]:
                raise ContractError(f"{path}: sample {key!r} holds {[name for _, name, _ in sample]}; expected image and json")
            facts = json.loads(sample[0][2])
            yield facts["image_id"], facts["label"], sample[1][2]


def decode_mosaic(data: bytes) -> NDArray[np.uint8]:
    """Return the (M, M, 3) uint8 mosaic of a sample of the kind ``patches``, read-only.

    The format is named because Pillow would try its other readers first, which takes a sixth of the time of a small mosaic.
    """
    return np.asarray(Image.open(io.BytesIO(data), formats=("WEBP",)))
