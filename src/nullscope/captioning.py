"""Captions of images: decoding and resizing in the loader's processes, which read ahead; BLIP on the device.

`captions` writes those of a data set, a `Writer` those of the images that a detector with captions at inference is to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nullscope.config import validate
from nullscope.contracts import CAPTIONS
from nullscope.data.images import decode
from nullscope.data.shards import Item, read_item
from nullscope.data.text import TextTable
from nullscope.encoders.blip import Captioner, CaptionParams, PixelReader
from nullscope.encoders.clip import load_text_encoder


def captions(
    chunks: Sequence[Sequence[Item]], blip: Path, params: CaptionParams, max_pixels: int, device: torch.device, workers: int
) -> Iterator[pa.Table]:
    """Yield a table of `contracts.CAPTIONS` for every chunk of images, in order."""
    captioner = Captioner(blip, params, device)
    # A batch never spans two chunks: what BLIP computes for a chunk is the same whichever rank has it.
    starts = [(chunk, start) for chunk in chunks for start in range(0, len(chunk), params.batch_size)]
    batches = [chunk[start : start + params.batch_size] for chunk, start in starts]
    read = _Pixels(batches, PixelReader(blip), max_pixels)
    pixels = iter(DataLoader(read, batch_size=None, num_workers=workers, pin_memory=device.type == "cuda"))
    for chunk in chunks:
        found: list[str] = []
        while len(found) < len(chunk):
            found += captioner.caption(next(pixels))
        yield pa.table([[item.image_id for item in chunk], found], schema=CAPTIONS)


class Writer:
    """A frozen BLIP and text tower: captions of single images, and their features."""

    def __init__(self, blip: Path, clip: Path, params: dict[str, Any], given: Mapping[str, str], device: torch.device) -> None:
        """``params``: of the section ``caption``; ``given``: captions by the name of the image, taken as they are."""
        self.reader, self.given = PixelReader(blip), given
        self.params = validate("caption", params, CaptionParams)
        self.captioner = Captioner(blip, self.params, device)
        self.encode = load_text_encoder(clip, device)

    def features(self, pixels: Mapping[str, Tensor]) -> TextTable:
        """Return the features of the captions of the images that ``pixels`` names; (3, S, S) uint8 each, of `PixelReader`."""
        known = {name: self.given[name] for name in pixels if name in self.given}
        left = [name for name in pixels if name not in known]
        for start in range(0, len(left), self.params.batch_size):
            names = left[start : start + self.params.batch_size]
            known |= zip(names, self.captioner.caption(torch.stack([pixels[name] for name in names])), strict=True)
        return TextTable(list(known), self.encode(list(known.values())), "captions")


class _Pixels(Dataset):
    """Batches of images as BLIP sees them, (B, 3, S, S) uint8."""

    def __init__(self, batches: Sequence[Sequence[Item]], reader: PixelReader, max_pixels: int) -> None:
        self.batches, self.reader, self.max_pixels = batches, reader, max_pixels

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack([self.reader(decode(read_item(item), max_pixels=self.max_pixels)) for item in self.batches[index]])
