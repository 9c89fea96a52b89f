"""caption: index, images, blip -> data/captions.parquet. One row per distinct image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from nullscope.backbones.blip import CaptionParams
from nullscope.backbones.fetch import source_name
from nullscope.captioning import captions
from nullscope.core import ranks
from nullscope.core.config import load_params, read_params, section_of
from nullscope.core.contracts import CAPTIONS
from nullscope.core.workspace import typed
from nullscope.tables.listing import Item, distinct_images
from nullscope.tables.parquet import write_batches
from nullscope.tables.parts import in_parts, scratch

INDEX, BLIP, OUT = Path("data/index.parquet"), Path("data/encoders/blip"), Path("data/captions.parquet")
CHUNK = 1024  # images of one piece of work


def main() -> None:
    dataset, params = section_of(read_params(), "dataset"), load_params("caption", CaptionParams)
    items = distinct_images(INDEX, typed(dataset["root"]))
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]

    def compute(pending: Sequence[list[Item]]) -> Iterator[pa.Table]:
        with tqdm(total=sum(map(len, pending)), desc="caption", unit="image", disable=ranks.rank() > 0) as bar:
            for table in captions(pending, BLIP, params, dataset["max_pixels"], ranks.device(), ranks.workers()):
                bar.update(len(table))
                yield table

    folder = scratch("caption", INDEX, BLIP / "model.safetensors", params)
    schema = CAPTIONS.with_metadata({"blip": source_name(BLIP), "parameters": params.model_dump_json()})
    tables = in_parts(chunks, compute, CAPTIONS, folder)
    if tables is not None:
        rows = write_batches(OUT, (batch for table in tables for batch in table.to_batches()), schema)
        print(f"caption: {len(items)} distinct images -> {OUT} ({rows} captions)")


if __name__ == "__main__":
    ranks.launch(main)
