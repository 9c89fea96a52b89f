"""The facts of the index (size, format, bytes, quality) of the images after preparation (`ShardParams.prepare`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nullscope.core.contracts import ContractError
from nullscope.images.decoder import header_facts
from nullscope.shards.reading import list_shards, read_shard
from nullscope.tables.index import INDEX

FACTS = ("width", "height", "format", "bytes", "jpeg_quality")  # of an image's file, as `images.Facts` has them


def as_prepared(index: pa.Table, folders: Iterable[Path]) -> pa.Table:
    """Return the rows of the index with the facts of the files that ``folders`` of shards (kind ``images``) hold of them.

    Raises `ContractError` if an image of the index is in no shard.
    """
    ids, found = [], []
    for folder in folders:
        for shard in list_shards(folder):
            for image_id, _, data in read_shard(shard.path):
                ids.append(image_id)
                found.append(vars(header_facts(data)))
    place = pc.index_in(index["image_id"], pa.array(ids, pa.string()))
    if place.null_count:
        raise ContractError(f"{place.null_count} images of the index are in no shard; run `dvc repro shard`")
    facts = pa.Table.from_pylist(found, pa.schema([INDEX.field(name) for name in FACTS])).take(place)
    for name in FACTS:
        if name in index.column_names:
            index = index.set_column(index.column_names.index(name), INDEX.field(name), facts[name])
    return index
