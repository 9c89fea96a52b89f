"""Frozen text features of captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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


def captions_of(split: str, captions: Path, index: Path, rows: int, prompts: Mapping[int, str] | None = None) -> Spill:
    """Return the captions of a split's distinct images, sorted by id, in batches of ``rows`` that lie on the disk.

    ``prompts``: what stands before every caption, by the label of its image; None: nothing. Raises `ContractError` if an image
    has no caption.
    """
    return Spill(_joined(split, captions, index, prompts), CAPTIONS, rows, SCRATCH)


def _joined(split: str, captions: Path, index: Path, prompts: Mapping[int, str] | None) -> Iterator[pa.RecordBatch]:
    """Yield the captions of the split's images. Both tables are in the order of the ids, so they are read side by side."""
    stream = distinct_rows(index, split, ["image_id", "label"])
    ids, labels, missing = pa.array([], pa.string()), pa.array([], pa.int8()), 0
    for batch in read_batches(captions, CAPTIONS):
        last = batch["image_id"][-1]
        while (not len(ids) or pc.less_equal(ids[-1], last).as_py()) and (more := next(stream, None)) is not None:
            ids, labels = pa.concat_arrays([ids, more["image_id"]]), pa.concat_arrays([labels, more["label"]])
        here = pc.sum(pc.less_equal(ids, last), min_count=0).as_py()
        place = pc.index_in(batch["image_id"], value_set=ids[:here])
        found = batch.filter(place.is_valid())
        missing += here - found.num_rows
        yield found if prompts is None else _prompted(found, labels.take(place.drop_null()), prompts)
        ids, labels = ids[here:], labels[here:]
    missing += len(ids) + sum(map(len, stream))
    if missing:
        raise ContractError(f"{captions}: {missing} images of the {split} split have no caption; rerun `caption`")


def _prompted(captions: pa.RecordBatch, labels: pa.Array, prompts: Mapping[int, str]) -> pa.RecordBatch:
    """Return captions behind the prompts of their labels, in the order of the rows."""
    words = [f"{prompts[label]} {said}" for label, said in zip(labels.to_pylist(), captions["caption"].to_pylist(), strict=True)]
    at = captions.schema.get_field_index("caption")
    return captions.set_column(at, captions.schema.field(at), pa.array(words, captions.schema.field(at).type))


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
