"""audit: data/index.parquet -> metrics/audit.json: how much of the label the files give away.   usage: audit.py"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nullscope.audit import COLUMNS, audit
from nullscope.contracts import INDEX
from nullscope.data.tables import read_table
from nullscope.files import write_json
from nullscope.ranks import launch
from nullscope.report.audit import shortcut_lines, shortcuts_table
from nullscope.report.layout import print_table

METRICS = Path("metrics/audit.json")


def main() -> None:
    index = read_table(Path("data/index.parquet"), INDEX, columns=list(COLUMNS))
    found = audit(index)
    write_json(METRICS, found)
    print_table(shortcuts_table(found), Console())
    for line in shortcut_lines(found):
        print(f"warning: {line}")
    subsets = f"{len(found['test']['subsets'])} test subsets, {found['too_few']} with too few images"
    print(f"audit: {index.num_rows} rows, {subsets} -> {METRICS}")


if __name__ == "__main__":
    launch(main, alone=True)
