"""embed: captions, index, clip -> data/text/{train,val,test,prompted}.parquet. Frozen text features, one row per distinct image.

One file per split, so that another test set does not make any detector train again. ``prompted`` is of the split train too: there
every caption begins with what says whether its image is real (`encoder.prompts`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from torch import Tensor
from tqdm import tqdm

from nullscope.backbones.clip import WEIGHTS_FILE, clip_facts, load_text_encoder
from nullscope.backbones.fetch import EncoderParams, source_name
from nullscope.core import ranks
from nullscope.core.config import load_params
from nullscope.core.contracts import FAKE, REAL, SPLITS, text_schema
from nullscope.embedding import captions_of, embed
from nullscope.tables.parquet import write_batches
from nullscope.tables.parts import in_parts, scratch

CAPTIONS, INDEX, CLIP = Path("data/captions.parquet"), Path("data/index.parquet"), Path("data/encoders/clip")
TEXT = Path("data/text")
CHUNK = 8192  # captions of one piece of work


def main() -> None:
    encode, prompts = load_text_encoder(CLIP, ranks.device()), load_params("encoder", EncoderParams).prompts
    for split in SPLITS:
        embed_split(split, TEXT / f"{split}.parquet", encode)
    embed_split("train", TEXT / "prompted.parquet", encode, {REAL: prompts.real, FAKE: prompts.fake})


def embed_split(split: str, out: Path, encode: Callable[[list[str]], Tensor], prompts: Mapping[int, str] | None = None) -> None:
    chunks = captions_of(split, CAPTIONS, INDEX, CHUNK, prompts)
    schema = text_schema(clip_facts(CLIP).width)

    def compute(pending: Sequence[pa.RecordBatch]) -> Iterator[pa.Table]:
        with tqdm(total=sum(map(len, pending)), desc=f"embed {out.stem}", unit="caption", disable=ranks.rank() > 0) as bar:
            for table in embed(pending, encode):
                bar.update(len(table))
                yield table

    tables = in_parts(
        chunks, compute, schema, scratch("embed", split, sorted((prompts or {}).items()), CAPTIONS, INDEX, CLIP / WEIGHTS_FILE)
    )
    if tables is not None:
        described = schema.with_metadata({"clip": source_name(CLIP)})
        rows = write_batches(out, (batch for table in tables for batch in table.to_batches()), described)
        print(f"embed: {rows} captions of the {split} split{' behind their prompts' if prompts else ''} -> {out}")


if __name__ == "__main__":
    ranks.launch(main)
