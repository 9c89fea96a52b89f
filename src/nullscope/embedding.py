"""Frozen text features of captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from nullscope.contracts import CAPTIONS, INDEX, ContractError, text_schema
from nullscope.data.tables import read_table, vector_table

BATCH_SIZE = 256  # captions of one forward pass


def captions_of(split: str, captions: Path, index: Path) -> pa.Table:
    """Return the captions of a split's distinct images, sorted by id. Raises `ContractError` if an image has none."""
    rows = read_table(index, INDEX, columns=["image_id", "split"])
    images = pc.unique(rows.filter(pc.equal(rows["split"], split))["image_id"]).sort()
    table = read_table(captions, CAPTIONS)
    place = pc.index_in(images, table["image_id"])
    if place.null_count:
        raise ContractError(f"{captions}: {place.null_count} images of the {split} split have no caption; rerun `caption`")
    return table.take(place).combine_chunks()


def embed(chunks: Sequence[pa.RecordBatch], encode: Callable[[list[str]], Tensor]) -> Iterator[pa.Table]:
    """Yield a table of `contracts.text_schema` for every chunk of `contracts.CAPTIONS`, in order.

    ``encode`` is that of `nullscope.encoders.clip.load_text_encoder`. Equal captions of a chunk are encoded once.
    """
    for chunk in chunks:
        distinct = chunk["caption"].dictionary_encode()
        words = distinct.dictionary.to_pylist()
        features_ND = torch.cat([encode(words[start : start + BATCH_SIZE]) for start in range(0, len(words), BATCH_SIZE)])
        rows_ND = features_ND[torch.tensor(distinct.indices.to_pylist())]
        yield vector_table(chunk["image_id"], rows_ND.numpy(), text_schema(rows_ND.shape[1]))
