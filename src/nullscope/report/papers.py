"""The papers' tables in their own layout, with our rows below the printed ones, and the scorecard of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nullscope.records.published import Cell as Place
from nullscope.records.published import Interval, Published, load_all, scorecard
from nullscope.report.layout import Cell, Column, Spread, Table, detector_column
from nullscope.report.seeds import ENOUGH, by_detector, estimate

DOUBTFUL = "?"  # behind a printed number that another one contradicts
Runs = Sequence[Mapping[str, Any]]  # the metrics of one detector, a dictionary per seed


def benchmarks() -> set[str]:
    """Return the data sets that the papers print numbers of."""
    return {table.benchmark for table in load_all().values()}


def paper_tables(dataset: str, summary: dict[str, Any]) -> list[Table]:
    """Return the published tables of a data set, each followed by our detectors in the same columns; none of an unknown one."""
    tables = [table for table in load_all().values() if table.benchmark == dataset]
    return [_paper_table(table, by_detector(summary)) for table in tables]


def scorecard_table(dataset: str, summary: dict[str, Any]) -> Table | None:
    """Return our numbers beside every published one of the same method, metric and subset; None where there is none."""
    if dataset not in benchmarks():
        return None
    names = sorted({table.part for table in load_all().values() if table.part})
    ours = {name: _ours(dataset, runs, names) for name, runs in by_detector(summary).items()}
    found = scorecard(dataset, ours)
    if not found:
        return None
    columns = [
        detector_column(),
        *(Column(key, title, "text") for key, title in (("table", "Table"), ("metric", "Metric"), ("subset", "Subset"))),
        Column("ours", "Ours"),
        Column("published", "Published"),
        Column("difference", "Difference", "points"),
        Column("inside", "Within our interval", "text"),
    ]
    rows: list[list[Cell]] = []
    for score in found:
        mark = DOUBTFUL if score.flagged else ""
        mean = Spread(score.ours, score.low, score.high, 1, "interval")
        words, inside = f"{100 * score.published:.1f}{mark}", "yes" if score.inside else "no"
        place = [_title(score.table), score.metric, score.subset or "all"]
        rows.append([score.detector, *place, mean, words, score.difference / 100, inside])
    share = np.mean([score.inside for score in found])
    note = (
        f"Percent; ±: half of our 95 % interval (images and, from {ENOUGH} seeds on, seeds, whichever reaches further). "
        f"{100 * share:.0f} % of the {len(found)} published numbers lie within. {DOUBTFUL}: contradicted by "
        "the papers' other numbers."
    )
    return Table("scorecard", "Scorecard: ours against published", note, columns, rows)


def _paper_table(table: Published, runs: Mapping[str, Runs]) -> Table:
    columns = [Column("detector", "Method", "text"), *(Column(column, column) for column, _ in table.cells())]
    rows: list[list[Cell]] = [
        [method, *(_printed(table, method, column) for column, _ in table.cells())] for method in table.rows
    ]
    for name, own in runs.items():
        rows.append([f"{name} (ours)", *(_over_seeds(own, place, table) for _, place in table.cells())])
    note = f"Percent. Averages are {_averaging(table)}. {DOUBTFUL}: the paper's own numbers contradict this one."
    note += "".join(f" {method}: {flag.note}" for method, flag in _notes(table))
    return Table(f"paper_{table.id}", f"{_title(table.id)}: {table.title}", note, columns, rows)


def _notes(table: Published) -> list[tuple[str, Any]]:
    seen = dict.fromkeys((flag.method, flag.note) for flag in table.flags)
    return [(method, next(f for f in table.flags if (f.method, f.note) == (method, note))) for method, note in seen]


def _printed(table: Published, method: str, column: str) -> Cell:
    value = table.rows[method].get(column)
    if value is None:
        return None
    return f"{value:.1f}{DOUBTFUL}" if table.flags_of(method, column) else f"{value:.1f}"


def _title(id: str) -> str:
    table = load_all()[id]
    return f"{table.paper}, table {table.number}"


def _averaging(table: Published) -> str:
    words = {
        "real_fakes": "of the column of reals and every column of fakes, each with the same weight",
        "fakes": "of the columns of fakes",
        "balanced": "of balanced accuracies",
        "subsets": "of the subsets",
        "none": "not printed",
    }
    return words[table.averaging]


def _over_seeds(runs: Runs, place: Place, table: Published) -> Cell:
    values = [_value(run, place, table) for run in runs]
    return None if None in values else estimate(values)


def _value(run: Mapping[str, Any], place: Place, table: Published) -> float | None:
    """Return one of our numbers as a paper's table asks for it: of a subset, of a degradation, or a mean over its columns."""
    metric, name = place
    if table.degradations:
        return run.get("degradations", {}).get(name, {}).get(metric)
    if name is not None and name != table.part:
        return run["subsets"].get(name, {}).get(metric)
    subsets = [run["subsets"].get(subset, {}) for subset in table.columns.values()] or list(run["subsets"].values())
    return _mean(subsets, metric)


def _mean(subsets: Sequence[Mapping[str, float]], metric: str) -> float | None:
    """Return a mean over subsets, by the names of `metrics`; None unless every subset has it."""
    reals, fakes = [row.get("r_acc") for row in subsets], [row.get("f_acc") for row in subsets]
    if metric == "mean_real_fakes":
        return None if None in (*reals, *fakes) else float(np.mean([np.mean(reals), *fakes]))
    values = {"mean_fakes": fakes, "r_acc": reals}.get(metric)
    if metric == "mean_balanced":
        values = [row.get("balanced_acc") for row in subsets]
    values = values if values is not None else [row.get(metric) for row in subsets]
    return float(np.mean(values)) if values and None not in values else None


def _ours(dataset: str, runs: Runs, parts: Sequence[str]) -> dict[Place, Interval]:
    """Return every number of a detector that a table of the papers may ask for, with its interval."""
    found: dict[Place, Interval] = {}
    subsets = {name for run in runs for name in run["subsets"]}
    for name in subsets:
        for key in ("f_acc", "ap", "balanced_acc"):
            found |= _entry((key, name), [run["subsets"].get(name, {}) for run in runs], key)
    for key in ("r_acc", "ap", "mean_real_fakes", "mean_fakes", "mean_balanced"):
        found |= _entry((key, None), runs, key)
    for name in runs[0].get("degradations", {}):
        found |= _entry(("mean_balanced", name), [run["degradations"][name] for run in runs], "mean_balanced")
    for part in parts:
        for table in (table for table in load_all().values() if (table.benchmark, table.part) == (dataset, part)):
            for _, place in table.cells():
                values = [_value(run, place, table) for run in runs] if place[1] == part else [None]
                if None not in values:
                    mean = estimate(values)
                    found[place] = Interval(mean.mean, max(0.0, mean.low), min(1.0, mean.high))
    return found


def _entry(place: Place, rows: Sequence[Mapping[str, float]], key: str) -> dict[Place, Interval]:
    """Return a number with the wider of its two intervals: over images (the mean of the seeds' own), and over seeds."""
    if not rows or any(key not in row for row in rows):
        return {}
    seeds = estimate([row[key] for row in rows])
    low = np.mean([row.get(f"{key}_low", row[key]) for row in rows])
    high = np.mean([row.get(f"{key}_high", row[key]) for row in rows])
    low, high = min(low, seeds.low, seeds.mean), max(high, seeds.high, seeds.mean)
    return {place: Interval(seeds.mean, max(0.0, float(low)), min(1.0, float(high)))}
