"""track: models, metrics, reports -> MLflow, after `dvc repro` or `dvc pull`. What is up to date stays as it is.

Not a stage of dvc.yaml: DVC would skip it on a machine that pulled the results, which MLflow there does not know yet.
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nullscope import tracking
from nullscope.tracking.registry import Registered, register


def main() -> int:
    console = Console()
    try:
        with console.status("publishing to MLflow"):
            rows = tracking.publish(Path())
            registered = register(Path())
    except ValueError as error:
        print(f"track: {error}", file=sys.stderr)
        return 1
    if not rows:  # tracking is switched off; publish has printed so
        return 0
    console.print(_table(rows))
    print(f"\n{_registered(registered)}\nTo look at them: {tracking.viewer()}")
    for row in rows:
        if row.missing:
            print(f"track: {row.name}: no {row.missing}; run {row.remedy}, then this again", file=sys.stderr)
    return int(any(row.missing for row in rows))


def _registered(found: Registered) -> str:
    """Return what the registry holds, in sentences."""
    versions = ", ".join(f"{run} (version {version})" for run, version in found.versions.items())
    said = [f"Registered as {found.name}: {versions or 'none'}."]
    if found.too_large:
        said.append(f"Too large for a run of its own, frozen networks and all: {', '.join(found.too_large)}.")
    reason = "the paired test tells it from all others" if found.champion else "no detector is told apart from all others"
    said.append(f"Champion: {found.champion or 'none'} ({reason}).")
    return "\n".join(said)


def _table(rows: list[tracking.Row]) -> Table:
    table = Table("run", "status", box=None)
    for measure in ("acc", "ap"):
        table.add_column(measure, justify="right")
    for row in rows:
        table.add_row(row.name, row.status, *("-" if value is None else f"{value:.4f}" for value in (row.acc, row.ap)))
    return table


if __name__ == "__main__":
    sys.exit(main())
