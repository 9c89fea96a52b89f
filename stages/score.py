"""score@<run>: model, test shards, test captions -> scores/<run>.parquet, data/features/<run>.parquet.

usage: score.py <detector>-<seed>
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from nullscope import ranks
from nullscope.contracts import SCORES
from nullscope.data.loading import read_whole
from nullscope.data.parts import in_parts, scratch
from nullscope.data.shards import MANIFEST, Shard, list_shards
from nullscope.data.tables import write_table
from nullscope.data.text import TextTable
from nullscope.saved import WEIGHTS, load
from nullscope.scoring import JUDGED, join_index, judged, kept_features

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
    ends = itertools.accumulate(shard.samples for shard in shards)
    keep = {shard.path: max(0, shard.samples - max(0, end - SHOWN)) for shard, end in zip(shards, ends, strict=True)}

    def compute(pending: Sequence[Shard]) -> Iterator[pa.Table]:
        with tqdm(total=sum(s.samples for s in pending), desc=f"score {run}", unit="image", disable=ranks.rank() > 0) as bar:
            for shard, rows in zip(pending, read_whole(list(pending), detector.view, workers=ranks.workers()), strict=True):
                yield judged(detector, rows, keep[shard.path], device, text)
                bar.update(len(rows.image_ids))

    tables = in_parts(shards, compute, JUDGED, scratch("score", run, SHOWN, model / WEIGHTS, folder / MANIFEST, TEXT))
    if tables is not None:
        table = pa.concat_tables(tables)
        scores, features = join_index(table, INDEX), kept_features(table)
        out, shown = Path("scores") / f"{run}.parquet", Path("data/features") / f"{run}.parquet"
        write_table(out, scores, SCORES)
        write_table(shown, features, features.schema)
        print(f"score: {run}, {len(scores)} test images -> {out}; features of {len(features)} -> {shown}")


if __name__ == "__main__":
    ranks.launch(main)
