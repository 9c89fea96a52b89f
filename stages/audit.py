"""audit: data/index.parquet, data/shards/images -> metrics/audit.json: the file bias of the data set.   usage: audit.py

Where `shard.prepare` is set, of the files as they are after preparation.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nullscope.core.config import read_params, section_of
from nullscope.core.contracts import SPLITS
from nullscope.core.files import write_json
from nullscope.core.ranks import launch
from nullscope.evaluation.file_bias import COLUMNS, measure_file_bias
from nullscope.report.layout import print_table
from nullscope.report.tables.file_bias import warning_lines, within_table
from nullscope.shards.prepared import as_prepared
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table

SHARDS, METRICS = Path("data/shards/images"), Path("metrics/audit.json")


def main() -> None:
    index = read_table(Path("data/index.parquet"), INDEX, columns=list(COLUMNS))
    prepare = section_of(read_params(), "shard.prepare")
    if prepare:
        index = as_prepared(index, [SHARDS / split for split in SPLITS])
    measured = measure_file_bias(index, reals=section_of(read_params(), "dataset.reals"))
    write_json(METRICS, measured)
    print_table(within_table(measured), Console())
    for line in warning_lines(measured):
        print(f"warning: {line}")
    state = f"prepared by {', '.join(prepare)}" if prepare else "as they are"
    print(f"audit: {index.num_rows} rows {state}, {len(measured['test']['subsets'])} test subsets -> {METRICS}")


if __name__ == "__main__":
    launch(main, alone=True)
