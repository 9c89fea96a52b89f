"""evaluate@<run>: scores/<run>.parquet, data/index.parquet -> metrics/<run>.json, data/evaluated/<run>.{json,parquet}.

usage: evaluate.py RUN
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from nullscope.core.config import read_params, section_of
from nullscope.core.files import write_json
from nullscope.core.launcher import arguments
from nullscope.core.ranks import launch
from nullscope.evaluation.protocol import evaluate_with_resamples
from nullscope.evaluation.scores import (
    TEST,
    check_complete,
    index_counts,
    read_test_scores,
    read_val_scores,
    seen_subsets,
    with_origins,
)
from nullscope.locked import refuse_damaged
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table, write_table

COLUMNS = ["image_id", "split", "subset", "generator", "label", "source_of_real", "group"]


def main() -> None:
    (run,) = arguments("RUN")
    scores = Path(f"scores/{run}.parquet")
    refuse_damaged(str(scores), "data/index.parquet")
    images = read_table(Path("data/index.parquet"), INDEX, columns=COLUMNS)
    listed, seen = images.filter(pc.equal(images["split"], TEST)), seen_subsets(index_counts(images.to_batches()))
    rows, val = read_test_scores(scores), read_val_scores(scores)
    check_complete(rows, listed, scores)
    reals = section_of(read_params(), "dataset.reals")
    metrics, resamples = evaluate_with_resamples(with_origins(rows, listed), seen, reals, val=val)
    for folder in ("metrics", "data/evaluated"):  # the second for the report: DVC can depend on a folder, not on a list of files
        write_json(Path(f"{folder}/{run}.json"), metrics)
    write_table(Path(f"data/evaluated/{run}.parquet"), resamples, resamples.schema)
    kinds = f"{metrics['n_real']} reals and {metrics['n_fake']} fakes in {len(metrics['subsets'])} subsets"
    print(f"evaluate: {rows.num_rows} scores of {kinds} -> metrics/{run}.json")


if __name__ == "__main__":
    launch(main, alone=True)
