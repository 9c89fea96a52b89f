"""evaluate@<run>: scores/<run>.parquet, data/index.parquet -> metrics/<run>.json, data/evaluated/<run>.{json,parquet}.

usage: evaluate.py <detector>-<seed>
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.compute as pc

from nullscope.core.config import read_params, section_of
from nullscope.core.contracts import INDEX, SCORES, ContractError
from nullscope.core.files import write_json
from nullscope.core.ranks import launch
from nullscope.evaluation.metrics import evaluate_with_resamples, index_counts, seen_subsets
from nullscope.tables.parquet import read_batches, read_table, write_table


def main() -> None:
    if len(sys.argv) != 2:
        raise ValueError(f"expected one run, such as `ns_net-0`, found {sys.argv[1:]}")
    run, index = sys.argv[1], Path("data/index.parquet")
    path = Path(f"scores/{run}.parquet")
    scores = read_table(path, SCORES)
    scores = scores.filter(pc.equal(scores["split"], "test"))
    groups = index_counts(read_batches(index, INDEX))
    images = sum(count for (split, *_), count in groups.items() if split == "test")
    for group in pc.value_counts(scores["degradation"]).to_pylist():
        if group["counts"] != images:
            found = f"{group['counts']} scores of degradation {group['values']!r}"
            raise ContractError(f"{path}: {found}, but {index} lists {images} test images; run `dvc repro`")
    reals = section_of(read_params(), "dataset.reals")
    metrics, resamples = evaluate_with_resamples(scores, seen_subsets(groups), reals)
    for folder in ("metrics", "data/evaluated"):  # the second for the report: DVC can depend on a folder, not on a list of files
        write_json(Path(f"{folder}/{run}.json"), metrics)
    write_table(Path(f"data/evaluated/{run}.parquet"), resamples, resamples.schema)
    kinds = f"{metrics['n_real']} reals and {metrics['n_fake']} fakes in {len(metrics['subsets'])} subsets"
    print(f"evaluate: {scores.num_rows} scores of {kinds} -> metrics/{run}.json")


if __name__ == "__main__":
    launch(main, alone=True)
