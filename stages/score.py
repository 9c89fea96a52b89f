"""score@<run>: model, shards and captions of the splits val and test -> scores/<run>.parquet, data/features/<run>.parquet.

usage: score.py RUN    scores every image as it is, and those of test after every degradation of `score.degradations`
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from tqdm import tqdm

from nullscope.core import ranks
from nullscope.core.config import load_params
from nullscope.core.contracts import CLEAN, SCORES
from nullscope.core.launcher import arguments
from nullscope.core.runs import detector_of
from nullscope.detectors import method_of
from nullscope.images.degradations import Degraded, ScoreParams
from nullscope.model_facts import WEIGHTS, ModelFacts
from nullscope.model_folder import load, patches_of
from nullscope.scoring import SCORED, kept_features, scored
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import Shard, list_shards
from nullscope.shards.tars import MANIFEST
from nullscope.tables.index import join_index
from nullscope.tables.parquet import write_table
from nullscope.tables.parts import in_parts, scratch
from nullscope.tables.text import TextTable

INDEX, TEXT, SHARDS = Path("data/index.parquet"), Path("data/text"), Path("data/shards")
CODE = Path("data/detector_code")
SCORED_SPLITS = ("val", "test")  # a data set without validation images has no tars of val
# Test images whose features are kept for the figures: the shards are in the order of a hash, so the first are a fair sample.
SHOWN = 1000


class Work(NamedTuple):
    """One tar, scored under one degradation."""

    degradation: str
    split: str
    shard: Shard
    keep: int  # images whose features are kept


def main() -> None:
    (run,) = arguments("RUN")
    model, device, params = Path("models") / run, ranks.device(), load_params("score", ScoreParams)
    detector, facts = load(model, device)
    check_origin(run, facts)
    texts = {split: TEXT / f"{split}.parquet" for split in SCORED_SPLITS}
    text = {split: TextTable.read(path) if detector.captions_at_inference else None for split, path in texts.items()}
    kinds = {CLEAN: detector.transform.kind, **dict.fromkeys(params.degradations, Degraded.kind)}
    pairs = [*((CLEAN, split) for split in SCORED_SPLITS), *((name, "test") for name in params.degradations)]
    folders = {(name, split): SHARDS / kinds[name] / split for name, split in pairs}
    work = [item for (name, split), folder in folders.items() for item in plan(name, split, list_shards(folder))]

    def compute(pending: Sequence[Work]) -> Iterator[pa.Table]:
        images = sum(item.shard.samples for item in pending)
        with tqdm(total=images, desc=f"score {run}", unit="image", disable=ranks.rank() > 0) as bar:
            for name, group in itertools.groupby(pending, lambda item: item.degradation):
                items = list(group)
                transform = detector.transform if name == CLEAN else Degraded(detector.transform, name, patches_of(facts))
                read = read_whole([item.shard for item in items], transform, workers=ranks.workers())
                for item, rows in zip(items, read, strict=True):
                    yield scored(detector, rows, item.keep, device, text[item.split])
                    bar.update(len(rows.image_ids))

    inputs = model / WEIGHTS, *(folder / MANIFEST for folder in folders.values()), *texts.values()
    tables = in_parts(work, compute, SCORED, scratch("score", run, SHOWN, params, *inputs))
    if tables is not None:
        write(run, work, tables)


def check_origin(run: str, facts: ModelFacts) -> None:
    """Raise `ValueError` unless the model is of the kind and of the method that DVC takes the run for."""
    recorded = json.loads((CODE / f"{detector_of(run)}.json").read_text(encoding="utf-8"))
    expected = ("official" if detector_of(run) == run else "retrained", recorded["method"])
    found = (facts.weights, method_of(facts.detector, facts.params))
    if found != expected:
        raise ValueError(
            f"models/{run}: expected {' weights of '.join(expected)}, found {' weights of '.join(found)}; trained ones go by "
            "run.detectors, imported ones by run.official under a name that begins with their detector's"
        )


def plan(degradation: str, split: str, shards: list[Shard]) -> list[Work]:
    """Return the tars of one degradation and one split, in order; features are kept of test images as they are."""
    ends = itertools.accumulate(shard.samples for shard in shards)
    keep = [max(0, shard.samples - max(0, end - SHOWN)) for shard, end in zip(shards, ends, strict=True)]
    shown = degradation == CLEAN and split == "test"
    return [Work(degradation, split, shard, kept if shown else 0) for shard, kept in zip(shards, keep, strict=True)]


def write(run: str, work: Sequence[Work], tables: Iterator[pa.Table]) -> None:
    """Write the scores, one degradation after the other and in each the splits, and the kept features."""
    scores, counts = [], Counter()
    for (name, split), group in itertools.groupby(zip(work, tables, strict=True), lambda pair: pair[0][:2]):
        table = pa.concat_tables(part for _, part in group)
        scores.append(join_index(table, INDEX, split, name))
        counts[split] += len(scores[-1])
        if name == CLEAN and split == "test":
            features = kept_features(table)
    out, shown = Path("scores") / f"{run}.parquet", Path("data/features") / f"{run}.parquet"
    write_table(out, pa.concat_tables(scores), SCORES)
    write_table(shown, features, features.schema)
    rows = " and ".join(f"{count} of {split}" for split, count in counts.items())
    print(f"score: {run}, rows: {rows} -> {out}; features of {len(features)} test images -> {shown}")


if __name__ == "__main__":
    ranks.launch(main)
