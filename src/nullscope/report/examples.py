"""Two test images as they are and as a patch detector sees them, out of the shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nullscope.core.contracts import FAKE, REAL, ContractError
from nullscope.shards.tars import entries, opened, remote_root


@dataclass(frozen=True)
class Example:
    """One test image beside its patch-selected mosaic, (H, W, 3) uint8 both."""

    image_id: str
    label: int
    original_HWC: NDArray[np.uint8]
    mosaic_HWC: NDArray[np.uint8]


def read_examples(shards: Path) -> list[Example]:
    """Return the first real and the first fake of the test shards, each beside its mosaic."""
    mosaics: dict[int, tuple[str, bytes]] = {}
    for image_id, label, data in _samples(shards / "patches/test"):
        mosaics.setdefault(label, (image_id, data))
        if {REAL, FAKE} <= set(mosaics):
            break
    wanted = {image_id: (label, data) for label, (image_id, data) in sorted(mosaics.items())}
    found = {}
    for image_id, _, data in _samples(shards / "images/test"):
        if image_id in wanted:
            found[image_id] = data
        if len(found) == len(wanted):
            return [Example(key, label, _decode(found[key]), _decode(mosaic)) for key, (label, mosaic) in wanted.items()]
    raise ContractError(f"{shards}: images/test lacks {sorted(set(wanted) - set(found))} of patches/test; run `dvc repro shard`")


def _samples(directory: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield (image_id, label, content) of every sample, in order.

    `nullscope.shards.reading` reads them through webdataset, which imports torch; two samples are not worth those seconds.
    """
    tars = [directory / name for name in entries(directory)] if remote_root() else sorted(directory.glob("*.tar"))
    if not tars:
        raise ContractError(f"{directory}: expected tars, found none; run `dvc repro` to make them (stage `shard`)")
    for path in tars:
        parts: dict[str, dict[str, bytes]] = {}
        with opened(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                image_id, suffix = member.name.split(".", 1)
                parts.setdefault(image_id, {})["json" if suffix == "json" else "content"] = tar.extractfile(member).read()
                if len(parts[image_id]) == 2:
                    sample = parts.pop(image_id)
                    yield image_id, json.loads(sample["json"])["label"], sample["content"]


def _decode(data: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
