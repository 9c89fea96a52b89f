"""The tables of single subsets: accuracy and average precision per generator, and every run on every subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Console

from nullscope.evaluation.paired import Tables, compare
from nullscope.evaluation.seeds import Spread
from nullscope.evaluation.summary import Metrics, by_detector, spread, subsets_of
from nullscope.report.layout import Cell, Column, Table, detector_column, print_table, yes_no
from nullscope.report.tables.pairs import cell_of, tested_note

SEEN, UNSEEN = "seen", "unseen"  # whether the generator was in the training split


def per_generator_table(summary: Mapping[str, Metrics], key: Literal["f_acc", "ap"]) -> Table:
    """Return one row per detector with a column per test subset, the reals first where ``key`` is an accuracy."""
    columns = [Column(name, name, group=SEEN if seen else UNSEEN, best="max") for name, seen in subsets_of(summary).items()]
    rows: list[list[Cell]] = []
    for detector, runs in by_detector(summary).items():
        parts = [[run["subsets"].get(column.key, {}) for run in runs] for column in columns]
        rows.append([detector, *(spread(part, key) for part in parts)])
    if key == "ap":
        note = "Percent. Chance is the share of fakes among a subset's images, not 50."
        return Table("per_generator_ap", "Average precision per generator", note, [detector_column(), *columns], rows)
    for row, runs in zip(rows, by_detector(summary).values(), strict=True):
        row.insert(1, spread(runs, "r_acc"))
    note = "Percent of the reals called real, then percent of each generator's fakes called fake, at the threshold of logit 0."
    columns = [detector_column(), Column("real", "Real", best="max"), *columns]
    return Table("per_generator", "Accuracy per generator", note, columns, rows)


def per_generator_differences(summary: Mapping[str, Metrics], tables: Tables, fixed: frozenset[str]) -> Table | None:
    """Return the difference in AUROC to the first detector on every generator, all tested together; None of a single detector.

    ``tables``, ``fixed``: as in `paired.compare`.
    """
    first, *others = by_detector(summary)
    subsets = {
        name: seen
        for name, seen in subsets_of(summary).items()
        if all(f"auroc/{name}" in table.column_names for own in tables.values() for table in own)
    }
    if not others or not subsets:
        return None
    found = compare(tables, [(name, first, f"auroc/{subset}") for name in others for subset in subsets], fixed=fixed)
    columns = [Column(name, name, "points", SEEN if seen else UNSEEN, tested=True) for name, seen in subsets.items()]
    cells = [cell_of(own) for own in found]
    rows = [[name, *cells[at * len(subsets) : (at + 1) * len(subsets)]] for at, name in enumerate(others)]
    note = f"AUROC less that of {first}, in points ± half the 95 % interval of each. "
    note += tested_note("the whole table", (own.p is not None for own in found))
    return Table("per_generator_differences", f"AUROC per generator, against {first}", note, [detector_column(), *columns], rows)


def runs_table(summary: Mapping[str, Metrics]) -> Table:
    """Return one row per run and subset: every number of every subset, with the 95 % interval and the counts."""
    rates = {"r_acc": "Real acc.", "f_acc": "Fake acc.", "acc": "Accuracy", "balanced_acc": "Balanced", "ap": "AP"}
    rates |= {"auroc": "AUROC", "tpr_1": "TPR at 1 % FPR", "tpr_5": "TPR at 5 % FPR"}
    columns = [Column("run", "Run", "text"), Column("subset", "Subset", "text"), Column("seen", "Seen", "text")]
    columns += [Column(key, title) for key, title in rates.items()]
    columns += [Column("n_real", "Reals", "count"), Column("n_fake", "Fakes", "count")]
    rows: list[list[Cell]] = [
        [run, name, yes_no(row.get("seen")), *(_interval(row, key) for key in rates), row["n_real"], row["n_fake"]]
        for run, metrics in summary.items()
        for name, row in sorted(metrics["subsets"].items())
    ]
    note = (
        "Percent with 95 % intervals: Wilson's and Newcombe's for shares of images, bootstrap for the others. n/a: not defined, "
        "or too few reals for that share of false alarms (99 for 1 %, 19 for 5 %). A subset without reals is compared with those "
        "that dataset.reals names, or with the shared ones."
    )
    return Table("runs", "Every run on every subset", note, columns, rows)


def print_summary(summary: Mapping[str, Metrics], console: Console) -> None:
    """Print the accuracy per generator of all runs (the content of metrics/summary.json) to the terminal."""
    print_table(per_generator_table(summary, "f_acc"), console, spans=False)


def _interval(row: Mapping[str, Any], key: str) -> Cell:
    """Return a number of one subset with its 95 % interval, or none where it is not defined."""
    if key not in row:
        return None
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return row[key] if low is None or high is None else Spread(row[key], low, high, 1, "interval")
