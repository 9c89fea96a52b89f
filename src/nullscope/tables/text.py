"""Text features of captions, joined to batches by the ids of the images. N images, D embedding width.

The features take 4 D bytes an image (3 kB for ViT-L/14), which is 30 GB for ten million. So they are unpacked into a file without
a name and mapped into memory: the kernel loads what is read, and drops it when memory is short. The ids take 72 bytes an image.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nullscope.core.contracts import ContractError, text_schema
from nullscope.tables.parquet import read_batches, vector_width, vectors_of
from nullscope.tables.parts import SCRATCH

CHUNK = 8192  # rows of one chunk of features; part of what a training is: their sums are rounded by it
ROWS = 4096  # read of the table at a time


class TextTable:
    """Features (N, D) float32, found by the ids of their images."""

    def __init__(self, image_ids: list[str] | np.ndarray, text_ND: Tensor, source: object) -> None:
        """``source`` is what an error names."""
        ids_N = _as_bytes(image_ids) if isinstance(image_ids, list) else image_ids
        self._place_N = np.argsort(ids_N, kind="stable")
        self._ids_N = ids_N[self._place_N]
        self.text_ND, self.source = text_ND, source

    @classmethod
    def read(cls, path: Path) -> TextTable:
        """Return the features of a ``text/<split>.parquet``."""
        width = vector_width(path, "text")
        SCRATCH.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=SCRATCH)
        ids = []
        try:
            with os.fdopen(handle, "wb") as file:
                for batch in read_batches(path, text_schema(width), rows=ROWS):
                    file.write(vectors_of(pa.table(batch), "text"))
                    ids.append(_as_bytes(batch["image_id"].to_pylist()))
            rows = sum(map(len, ids))
            # Mode "c" (copy on write) because torch wants memory that it may write to; nobody writes.
            text_ND = np.memmap(name, np.float32, mode="c", shape=(rows, width)) if rows else np.empty((0, width), np.float32)
        finally:
            os.unlink(name)
        return cls(np.concatenate(ids) if ids else _as_bytes([]), torch.from_numpy(text_ND), path)

    def rows(self, image_ids: list[str]) -> Tensor:
        """Return the features of some images, (B, D). Raises `ContractError` on an image without a caption."""
        asked_B = _as_bytes(image_ids)
        found_B = np.searchsorted(self._ids_N, asked_B)
        for image_id, asked, at in zip(image_ids, asked_B, found_B, strict=True):
            if at == len(self._ids_N) or self._ids_N[at] != asked:
                raise ContractError(f"{self.source}: no caption for image {image_id!r}; rerun the stages `caption` and `embed`")
        return self.text_ND[torch.from_numpy(self._place_N[found_B])]

    def chunks(self) -> Iterator[Tensor]:
        """Yield all features in chunks (n, D), n at most `CHUNK`, in the order of the file."""
        yield from self.text_ND.split(CHUNK)


def _as_bytes(names: list[str]) -> np.ndarray:
    """Return names as an array of their bytes, of one width: an id takes 64 bytes, as a `str` in a dictionary 220."""
    return np.array([name.encode("utf-8", "surrogateescape") for name in names], dtype=np.bytes_)
