"""WebDataset shards: the images of the index as tars, which are the same bytes on every machine.

A folder of shards holds ``<split>-<number>.tar`` and ``shards.json``, which lists every tar with its number of samples and its
SHA-256. A sample is ``<image_id>.<suffix>`` and ``<image_id>.json`` (``image_id``, ``label``). Images stand in the order of
their ids, which are hashes, so every shard is a fair sample of the whole. An image that the index lists twice stands there once.

- kind ``patches``: the patch-selected mosaic in rank order, lossless WebP (method 0: of the lossless codecs tried on 224 px
  mosaics the smallest, 57 kB, and among the fastest to read, 1.1 ms);
- kind ``images``: the original bytes; where images are prepared (`ShardParams`), the bytes of the prepared image.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image
from pydantic import PositiveInt

from nullscope.archives.originals import read_original
from nullscope.core.config import Params
from nullscope.core.files import replacing, sha256, write_json
from nullscope.images.decoder import decode
from nullscope.images.preparation import Name, encode_prepared
from nullscope.ops.patches import PatchParams, select
from nullscope.shards.tars import MANIFEST
from nullscope.tables.listing import Item

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif", "PPM": "ppm"}


class ShardParams(Params):
    """How many images a tar holds, and what is done to every image before."""

    samples: PositiveInt  # images per tar
    prepare: list[Name]  # `images.preparation`, one after the other, so that the files of a data set are alike


def write_shard(
    items: Sequence[Item], path: Path, kind: str, patches: PatchParams, max_pixels: int, prepare: Sequence[str] = ()
) -> None:
    """Write one tar atomically. Raises `ContractError` if a file is no longer what the index says."""
    with (
        replacing(path) as partial,
        open(partial, "wb") as file,
        wds.TarWriter(file, mtime=0, user="", group="", mode=0o644, encoder=False) as tar,
    ):
        for item in items:
            data = read_original(item.source, item.image_id)
            suffix, content = SUFFIXES[item.format], data
            if prepare:
                image = decode(data, max_pixels=max_pixels)
                suffix, content = encode_prepared(image, prepare, min_side=patches.patch_px)
            if kind == "patches":
                suffix, content = "webp", encode_mosaic(select(decode(content, max_pixels=max_pixels), patches))
            facts = json.dumps({"image_id": item.image_id, "label": item.label})
            tar.write({"__key__": item.image_id, suffix: content, "json": facts.encode()})


def write_manifest(directory: Path, counts: dict[str, int]) -> None:
    """Write the list of tars (name -> number of samples) with their SHA-256, once all of them are there."""
    shards = [{"name": name, "samples": counts[name], "sha256": sha256(directory / name)} for name in sorted(counts)]
    write_json(directory / MANIFEST, {"shards": shards})


def encode_mosaic(mosaic_HWC: NDArray[np.uint8]) -> bytes:
    """Return a mosaic as lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(mosaic_HWC).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()
