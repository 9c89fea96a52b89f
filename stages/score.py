"""score@<run>: model, test shards, test captions -> scores/<run>.parquet, data/features/<run>.parquet.

usage: score.py <detector>-<seed>    scores every test image as it is, and after every degradation of `score.degradations`
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from tqdm import tqdm

from nullscope.core import ranks
from nullscope.core.config import load_params
from nullscope.core.contracts import CLEAN, SCORES
from nullscope.images.degradations import Degraded, ScoreParams
from nullscope.model_folder import WEIGHTS, load
from nullscope.scoring import JUDGED, join_index, judged, kept_features
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import Shard, list_shards
from nullscope.shards.tars import MANIFEST
from nullscope.tables.parquet import write_table
from nullscope.tables.parts import in_parts, scratch
from nullscope.tables.text import TextTable

INDEX, TEXT, SHARDS = Path("data/index.parquet"), Path("data/text/test.parquet"), Path("data/shards")
# Images whose features are kept for the figures: the shards are in the order of a hash, so the first are a fair sample.
SHOWN = 1000


class Work(NamedTuple):
    """One tar, scored under one degradation."""

    degradation: str
    shard: Shard
    keep: int  # images whose features are kept


def main() -> None:
    run = sys.argv[1]
    model, device, params = Path("models") / run, ranks.device(), load_params("score", ScoreParams)
    detector, made = load(model, device)
    text = TextTable.read(TEXT) if detector.captions_at_inference else None
    kinds = {CLEAN: detector.transform.kind, **dict.fromkeys(params.degradations, Degraded.kind)}
    folders = {name: SHARDS / kind / "test" for name, kind in kinds.items()}
    work = [item for name, folder in folders.items() for item in plan(name, list_shards(folder))]

    def compute(pending: Sequence[Work]) -> Iterator[pa.Table]:
        images = sum(item.shard.samples for item in pending)
        with tqdm(total=images, desc=f"score {run}", unit="image", disable=ranks.rank() > 0) as bar:
            for name, group in itertools.groupby(pending, lambda item: item.degradation):
                items = list(group)
                transform = detector.transform if name == CLEAN else Degraded(detector.transform, name, made.patches)
                read = read_whole([item.shard for item in items], transform, workers=ranks.workers())
                for item, rows in zip(items, read, strict=True):
                    yield judged(detector, rows, item.keep, device, text)
                    bar.update(len(rows.image_ids))

    inputs = model / WEIGHTS, *(folder / MANIFEST for folder in folders.values()), TEXT
    tables = in_parts(work, compute, JUDGED, scratch("score", run, SHOWN, params, *inputs))
    if tables is not None:
        write(run, work, tables)


def plan(degradation: str, shards: list[Shard]) -> list[Work]:
    """Return the tars of one degradation, in order; features are kept of images as they are."""
    ends = itertools.accumulate(shard.samples for shard in shards)
    keep = [max(0, shard.samples - max(0, end - SHOWN)) for shard, end in zip(shards, ends, strict=True)]
    return [Work(degradation, shard, kept if degradation == CLEAN else 0) for shard, kept in zip(shards, keep, strict=True)]


def write(run: str, work: Sequence[Work], tables: Iterator[pa.Table]) -> None:
    """Write the scores, one degradation after the other, and the kept features."""
    scores = []
    for name, group in itertools.groupby(zip(work, tables, strict=True), lambda pair: pair[0].degradation):
        table = pa.concat_tables(part for _, part in group)
        scores.append(join_index(table, INDEX, name))
        if name == CLEAN:
            features = kept_features(table)
    out, shown = Path("scores") / f"{run}.parquet", Path("data/features") / f"{run}.parquet"
    write_table(out, pa.concat_tables(scores), SCORES)
    write_table(shown, features, features.schema)
    print(f"score: {run}, {len(scores[0])} test images in {len(scores)} states -> {out}; features of {len(features)} -> {shown}")


if __name__ == "__main__":
    ranks.launch(main)
