"""WebDataset shards: what the index lists, as tars that are the same bytes on every machine.

A folder of shards holds ``<split>-<number>.tar`` and ``shards.json``, which lists every tar with its number of samples and its
SHA-256. A sample is ``<image_id>.<suffix>`` and ``<image_id>.json`` (``image_id``, ``label``). Images stand in the order of
their ids, which are hashes: every shard is a fair sample of the whole, and an image listed twice stands there once.

- view ``patches``: the patch-selected mosaic in rank order, lossless WebP (method 0: of the lossless codecs tried on 224 px
  mosaics the smallest, 57 kB, and among the fastest to read, 1.1 ms);
- view ``images``: the original bytes untouched; where images are prepared (`ShardParams`), those of the prepared image.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image
from pydantic import PositiveInt
from webdataset.tariterators import group_by_keys

from nullscope.config import Params
from nullscope.contracts import ContractError
from nullscope.data.archives import read_source
from nullscope.data.degradations import Name, encode_prepared
from nullscope.data.images import decode, image_id
from nullscope.data.tar_members import members
from nullscope.data.tars import MANIFEST, entries, opened, require
from nullscope.files import replacing, sha256, write_json
from nullscope.ops.patches import PatchParams, select

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif", "PPM": "ppm"}


class ShardParams(Params):
    """How the shards are cut, and what is done to every image before."""

    samples: PositiveInt  # images per tar
    prepare: list[Name]  # `degradations`, one after the other: makes the files of a data set alike


@dataclass(frozen=True)
class Item:
    """One image to be written: where it lies and what it is."""

    image_id: str
    label: int
    source: Path  # or <archive>::<member>
    format: str  # Pillow's name of the file format


@dataclass(frozen=True)
class Shard:
    """One tar of a folder of shards."""

    path: Path
    samples: int


def write_shard(
    items: Sequence[Item], path: Path, view: str, patches: PatchParams, max_pixels: int, prepare: Sequence[str] = ()
) -> None:
    """Write one tar atomically. Raises `ContractError` if a file is no longer what the index says."""
    with (
        replacing(path) as partial,
        open(partial, "wb") as file,
        wds.TarWriter(file, mtime=0, user="", group="", mode=0o644, encoder=False) as tar,
    ):
        for item in items:
            data = read_item(item)
            suffix, content = SUFFIXES[item.format], data
            if prepare:
                image = decode(data, max_pixels=max_pixels)
                suffix, content = encode_prepared(image, prepare, min_side=patches.patch_px)
            if view == "patches":
                suffix, content = "webp", encode_mosaic(select(decode(content, max_pixels=max_pixels), patches))
            facts = json.dumps({"image_id": item.image_id, "label": item.label})
            tar.write({"__key__": item.image_id, suffix: content, "json": facts.encode()})


def write_manifest(directory: Path, counts: dict[str, int]) -> None:
    """Write the list of tars (name -> number of samples) with their SHA-256, once all of them are there."""
    shards = [{"name": name, "samples": counts[name], "sha256": sha256(directory / name)} for name in sorted(counts)]
    write_json(directory / MANIFEST, {"shards": shards})


def list_shards(directory: Path) -> list[Shard]:
    """Return the shards of a folder. Raises `ContractError` if there are none, or one is missing where they lie (`tars`)."""
    require(directory)
    return [Shard(directory / entry.name, entry.samples) for entry in entries(directory).values()]


def read_shard(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield (image_id, label, bytes of the image) of every sample of a tar, in order.

    Raises `ContractError` on a bad sample and, after the last one, on a tar from elsewhere that is not the listed one (`tars`).
    """
    with opened(path) as file:  # webdataset's own opener leaves the closing to the garbage collector
        for sample in group_by_keys(members(file, str(path))):
            contents = [name for name in sample if not name.startswith("__") and name != "json"]
            if len(contents) != 1 or "json" not in sample:
                raise ContractError(f"{path}: sample {sample['__key__']!r} holds {sorted(sample)}; expected image and json")
            facts = json.loads(sample["json"])
            yield facts["image_id"], facts["label"], sample[contents[0]]


def encode_mosaic(mosaic_HWC: NDArray[np.uint8]) -> bytes:
    """Return a mosaic as lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(mosaic_HWC).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()


def decode_mosaic(data: bytes) -> NDArray[np.uint8]:
    """Return the (M, M, 3) uint8 mosaic of a sample of the view ``patches``, read-only.

    Naming the format spares Pillow a try of its other readers, which is a sixth of the time of a small mosaic.
    """
    return np.asarray(Image.open(io.BytesIO(data), formats=("WEBP",)))


def read_item(item: Item) -> bytes:
    """Return the bytes of a listed image. Raises `ContractError` if they are no longer what the index says."""
    data = read_source(item.source)
    if image_id(data) != item.image_id:
        raise ContractError(f"{item.source} has changed since it was indexed; run `dvc repro index`")
    return data
