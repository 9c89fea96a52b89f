"""Frozen text features of captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from nullscope.core.contracts import CAPTIONS, ContractError, text_schema
from nullscope.tables.distinct import distinct_rows
from nullscope.tables.parquet import read_batches, vector_table
from nullscope.tables.parts import SCRATCH
from nullscope.tables.spill import Spill

BATCH_SIZE = 256  # captions of one forward pass


def captions_of(split: str, captions: Path, index: Path, rows: int) -> Spill:
    """Return the captions of a split's distinct images, sorted by id, in batches of ``rows`` that lie on the disk.

    Raises `ContractError` if an image has none.
    """
    return Spill(_joined(split, captions, index), CAPTIONS, rows, SCRATCH)


def _joined(split: str, captions: Path, index: Path) -> Iterator[pa.RecordBatch]:
    """Yield the captions of the split's images. Both tables are in the order of the ids, so they are read side by side."""
    stream = (batch["image_id"] for batch in distinct_rows(index, split, ["image_id"]))
    ids, missing = pa.array([], pa.string()), 0
    for batch in read_batches(captions, CAPTIONS):
        last = batch["image_id"][-1]
        while (not len(ids) or pc.less_equal(ids[-1], last).as_py()) and (more := next(stream, None)) is not None:
            ids = pa.concat_arrays([ids, more])
        here = pc.sum(pc.less_equal(ids, last), min_count=0).as_py()
        found = batch.filter(pc.is_in(batch["image_id"], value_set=ids[:here]))
        missing += here - found.num_rows
        ids = ids[here:]
        yield found
    missing += len(ids) + sum(map(len, stream))
    if missing:
        raise ContractError(f"{captions}: {missing} images of the {split} split have no caption; rerun `caption`")


def embed(chunks: Sequence[pa.RecordBatch], encode: Callable[[list[str]], Tensor]) -> Iterator[pa.Table]:
    """Yield a table of `contracts.text_schema` for every chunk of `contracts.CAPTIONS`, in order.

    ``encode`` is that of `nullscope.backbones.clip.load_text_encoder`. Equal captions of a chunk are encoded once.
    """
    for chunk in chunks:
        distinct = chunk["caption"].dictionary_encode()
        words = distinct.dictionary.to_pylist()
        features_ND = torch.cat([encode(words[start : start + BATCH_SIZE]) for start in range(0, len(words), BATCH_SIZE)])
        rows_ND = features_ND[torch.tensor(distinct.indices.to_pylist())]
        yield vector_table(chunk["image_id"], rows_ND.numpy(), text_schema(rows_ND.shape[1]))
