"""The index as a table: its columns, one row per file of the data set, and what is joined with it.

No training depends on this module: another column of the index trains nothing again.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nullscope.core.contracts import CLEAN, SCORES, ContractError
from nullscope.tables.parquet import read_table

INDEX = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # hexadecimal SHA-256 of the file's bytes
        pa.field("split", pa.string(), nullable=False),  # one of `contracts.SPLITS`
        pa.field("subset", pa.string(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),  # `contracts.REAL_GENERATOR` for label 0
        pa.field("label", pa.int8(), nullable=False),  # `contracts.REAL` or `FAKE`
        pa.field("source", pa.string(), nullable=False),  # path relative to the data set's root
        pa.field("width", pa.int32(), nullable=False),  # pixels, after EXIF rotation
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),  # as Pillow names it: JPEG, PNG, WEBP, ...
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("jpeg_quality", pa.int16(), nullable=True),  # 1 to 100, null where not a JPEG
        pa.field("source_of_real", pa.string(), nullable=True),  # where a photograph is from; null for a fake
        pa.field("group", pa.string(), nullable=True),  # images that belong together; null: the image alone
        pa.field("released", pa.date32(), nullable=True),  # the day from which a fake's generator was there
    ]
)


def join_index(table: pa.Table, index: Path, split: str, degradation: str = CLEAN) -> pa.Table:
    """Return one row of `contracts.SCORES` per row that the index has of ``split``, in its order.

    ``table`` has the columns `image_id` and `logit`. An image that the index lists in two subsets was scored once, and gets two
    rows. Raises `ContractError` unless every image of the split has exactly one logit.
    """
    listed = read_table(index, INDEX, columns=["image_id", "split", "subset", "label"])
    listed = listed.filter(pc.equal(listed["split"], split))
    images, found = len(pc.unique(listed["image_id"])), len(pc.unique(table["image_id"]))
    if len(table) != found:
        raise ContractError(f"{len(table)} logits of {found} images: an image was scored twice")
    place = pc.index_in(listed["image_id"], table["image_id"])
    if place.null_count or found != images:
        raise ContractError(f"{index} lists {images} images of the split {split}, the shards hold {found}; run `dvc repro shard`")
    logit = table["logit"].combine_chunks().take(place)
    named = pa.array([degradation] * len(listed), pa.string())
    return pa.table([listed["image_id"], listed["split"], listed["subset"], listed["label"], named, logit], schema=SCORES)
