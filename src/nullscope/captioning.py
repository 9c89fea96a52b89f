"""Captions of images. The loader's processes decode and resize ahead; BLIP runs on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nullscope.archives.originals import read_original
from nullscope.backbones.blip import Captioner, CaptionParams, PixelReader
from nullscope.core.contracts import CAPTIONS
from nullscope.images.decoder import decode
from nullscope.tables.listing import Item


def captions(
    chunks: Sequence[Sequence[Item]], blip: Path, params: CaptionParams, max_pixels: int, device: torch.device, workers: int
) -> Iterator[pa.Table]:
    """Yield a table of `contracts.CAPTIONS` for every chunk of images, in order."""
    captioner = Captioner(blip, params, device)
    # A batch never spans two chunks, so BLIP computes the same for a chunk on any rank.
    starts = [(chunk, start) for chunk in chunks for start in range(0, len(chunk), params.batch_size)]
    batches = [chunk[start : start + params.batch_size] for chunk, start in starts]
    read = _Pixels(batches, PixelReader(blip), max_pixels)
    pixels = iter(DataLoader(read, batch_size=None, num_workers=workers, pin_memory=device.type == "cuda"))
    for chunk in chunks:
        found: list[str] = []
        while len(found) < len(chunk):
            found += captioner.caption(next(pixels))
        yield pa.table([[item.image_id for item in chunk], found], schema=CAPTIONS)


class _Pixels(Dataset):
    """Batches of images as BLIP sees them, (B, 3, S, S) uint8."""

    def __init__(self, batches: Sequence[Sequence[Item]], reader: PixelReader, max_pixels: int) -> None:
        self.batches, self.reader, self.max_pixels = batches, reader, max_pixels

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Tensor:
        originals = (read_original(item.source, item.image_id) for item in self.batches[index])
        return torch.stack([self.reader(decode(data, max_pixels=self.max_pixels)) for data in originals])
