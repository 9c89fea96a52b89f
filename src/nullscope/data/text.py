"""Text features of captions, joined to batches from a table in memory. N images, D embedding width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nullscope.contracts import ContractError, text_schema
from nullscope.data.tables import read_table, vector_width, vectors_of

CHUNK = 8192  # rows of one chunk of features


class TextTable:
    """Features (N, D) float32, found by the ids of their images."""

    def __init__(self, image_ids: list[str], text_ND: Tensor, source: object) -> None:
        """``source`` is what an error names."""
        self.place = {image_id: row for row, image_id in enumerate(image_ids)}
        self.text_ND, self.source = text_ND, source

    @classmethod
    def read(cls, path: Path) -> TextTable:
        """Return the features of a ``text/<split>.parquet``."""
        table = read_table(path, text_schema(vector_width(path, "text")))
        return cls(table["image_id"].to_pylist(), torch.from_numpy(vectors_of(table, "text")), path)

    def rows(self, image_ids: list[str]) -> Tensor:
        """Return the features of some images, (B, D). Raises `ContractError` on an image without a caption."""
        try:
            return self.text_ND[[self.place[image_id] for image_id in image_ids]]
        except KeyError as error:
            raise ContractError(f"{self.source}: no caption for image {error}; rerun the stages `caption` and `embed`") from None

    def chunks(self) -> Iterator[Tensor]:
        """Yield all features in chunks (n, D), n at most `CHUNK`, in the order of the file."""
        yield from self.text_ND.split(CHUNK)
