"""score@<run>: model, test shards, test captions -> scores/<run>.parquet, data/features/<run>.parquet.

usage: score.py <detector>-<seed>
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from tqdm import tqdm

from nullscope import ranks
from nullscope.contracts import SCORES, feature_schema
from nullscope.data.loading import read_whole
from nullscope.data.parts import in_parts, scratch
from nullscope.data.shards import MANIFEST, Shard, list_shards
from nullscope.data.tables import write_table
from nullscope.data.text import TextTable
from nullscope.detectors.base import Detector
from nullscope.saved import WEIGHTS, load
from nullscope.scoring import LOGITS, features, join_index, logits

INDEX, TEXT = Path("data/index.parquet"), Path("data/text/test.parquet")
# Images whose features are kept for the figures: the shards are in the order of a hash, so the first are a fair sample.
SHOWN = 1000


def main() -> None:
    run = sys.argv[1]
    model, device = Path("models") / run, ranks.device()
    detector, _ = load(model, device)
    folder = Path("data/shards") / detector.view.kind / "test"
    shards = list_shards(folder)
    text = TextTable.read(TEXT) if detector.captions_at_inference else None

    def compute(pending: Sequence[Shard]) -> Iterator[pa.Table]:
        with tqdm(total=sum(s.samples for s in pending), desc=f"score {run}", unit="image", disable=ranks.rank() > 0) as bar:
            for rows in read_whole(list(pending), detector.view, workers=ranks.workers()):
                yield pa.table([rows.image_ids, logits(detector, rows, device, text)], schema=LOGITS)
                bar.update(len(rows.image_ids))

    tables = in_parts(shards, compute, LOGITS, scratch("score", run, model / WEIGHTS, folder / MANIFEST, TEXT))
    if tables is not None:
        out = Path("scores") / f"{run}.parquet"
        scores = join_index(pa.concat_tables(tables), INDEX)
        write_table(out, scores, SCORES)
        shown = Path("data/features") / f"{run}.parquet"
        sample = first_features(detector, shards, device, text)
        write_table(shown, sample, feature_schema(sample.schema.field("feature").type.list_size))
        print(f"score: {run}, {len(scores)} test images -> {out}; features of {len(sample)} -> {shown}")


def first_features(detector: Detector, shards: list[Shard], device: torch.device, text: TextTable | None) -> pa.Table:
    tables: list[pa.Table] = []
    for rows in read_whole(shards, detector.view, workers=0):
        tables.append(features(detector, rows, device, text))
        if sum(map(len, tables)) >= SHOWN:
            break
    return pa.concat_tables(tables).slice(0, SHOWN)


if __name__ == "__main__":
    ranks.launch(main)
