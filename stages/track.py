"""track: models, metrics, reports -> MLflow. Follows `dvc repro` or `dvc pull`; changes nothing that is up to date.

Not a stage of dvc.yaml: DVC would skip it on the machine that pulled the results, where it has the most to do.
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nullscope import tracking


def main() -> int:
    console = Console()
    try:
        with console.status("publishing to MLflow"):
            rows = tracking.publish(Path())
    except ValueError as error:
        print(f"track: {error}", file=sys.stderr)
        return 1
    if not rows:  # switched off, which publish has said
        return 0
    console.print(_table(rows))
    print(f"\nTo look at them: {tracking.viewer()}")
    for row in rows:
        if row.missing:
            print(f"track: {row.name}: no {row.missing}; run {row.remedy}, then this again", file=sys.stderr)
    return int(any(row.missing for row in rows))


def _table(rows: list[tracking.Row]) -> Table:
    table = Table("run", "status", box=None)
    for measure in ("acc", "ap"):
        table.add_column(measure, justify="right")
    for row in rows:
        table.add_row(row.name, row.status, *("-" if value is None else f"{value:.4f}" for value in (row.acc, row.ap)))
    return table


if __name__ == "__main__":
    sys.exit(main())
