"""The papers' tables in their own layout with our rows below the printed ones, and the scorecard: ours less the printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nullscope.evaluation.benchmark_means import of_subset, over_subsets, over_whole_run
from nullscope.evaluation.seeds import ENOUGH, Spread, over_seeds_and_images
from nullscope.evaluation.summary import Metrics, by_detector
from nullscope.records.published import Cell as Place
from nullscope.records.published import Flag, Interval, Published, load_all, scorecard
from nullscope.report.layout import Cell, Column, Table, detector_column, yes_no
from nullscope.report.project import is_official

DOUBTFUL = "?"  # behind a printed number that other numbers of the papers contradict
OURS = "(ours)"  # behind a detector's name, where printed methods stand in the same column
PAPERS = {"ns_net": "NS-Net", "dgs_net": "DGS-Net", "advanced_ns_net": "Advanced NS-Net"}
AVERAGES = {
    "real_fakes": "of the column of reals and every column of fakes, each with the same weight",
    "fakes": "of the columns of fakes",
    "balanced": "of balanced accuracies",
    "subsets": "of the subsets",
}
Runs = Sequence[Metrics]  # of one detector, in the order of the seeds


def benchmarks() -> set[str]:
    """Return the data sets that the papers print numbers of."""
    return {table.benchmark for table in load_all().values()}


def paper_tables(dataset: str, summary: Mapping[str, Metrics]) -> list[Table]:
    """Return the published tables of a data set, each followed by our detectors in the same columns; none of an unknown one."""
    return [_paper_table(table, by_detector(summary)) for table in _tables(dataset)]


def scorecard_table(dataset: str, summary: Mapping[str, Metrics], methods: Mapping[str, str]) -> Table | None:
    """Return our numbers beside every published one of the same method, metric and subset; None where there is none.

    ``methods`` has the method of every detector. One that is trained here is compared under its own name: a variant of a method
    is not the method. Released weights are compared as their method.
    """
    if dataset not in benchmarks():
        return None
    found = []
    for name, runs in by_detector(summary).items():
        printed = methods[name] if is_official(name) else name
        found += [replace(score, detector=name) for score in scorecard(dataset, {printed: _ours(dataset, runs)})]
    found.sort(key=lambda score: list(load_all()).index(score.table))
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
        words = f"{100 * score.published:.1f}{DOUBTFUL if score.flagged else ''}"
        mean = Spread(score.ours, score.low, score.high, 1, "interval")
        place = [_title(load_all()[score.table]), score.metric, score.subset or "all"]
        rows.append([score.detector, *place, mean, words, score.difference / 100, yes_no(score.inside)])
    share = np.mean([score.inside for score in found])
    note = (
        f"Percent; in brackets our 95 % interval, over images and, from {ENOUGH} seeds on, seeds. "
        f"{100 * share:.0f} % of the {len(found)} published numbers lie within. {DOUBTFUL}: contradicted by "
        "the papers' other numbers."
    )
    return Table("scorecard", "Scorecard: ours against published", note, columns, rows)


def scorecard_means(scorecard: Table) -> Table | None:
    """Return the rows of a scorecard that are means over subsets, the ones to look at first; None if it has none."""
    single = {name for table in load_all().values() if not table.degradations for name in table.columns.values()}
    at = [column.key for column in scorecard.columns].index("subset")
    rows = [row for row in scorecard.rows if row[at] not in single]
    return replace(scorecard, name="scorecard_means", title="Averages, ours against published", rows=rows) if rows else None


# The papers' layout


def _paper_table(table: Published, runs: Mapping[str, Runs]) -> Table:
    columns = [Column("detector", "Method", "text"), *(Column(column, column) for column, _ in table.cells())]
    rows: list[list[Cell]] = [
        [method, *(_printed(table, method, column) for column, _ in table.cells())] for method in table.rows
    ]
    for name, own in runs.items():
        rows.append([f"{name} {OURS}", *(_over_seeds(own, place, table) for _, place in table.cells())])
    return Table(f"paper_{table.id}", f"{_title(table)}: {table.title}", " ".join(_notes(table)), columns, rows)


def _notes(table: Published) -> Iterator[str]:
    """Yield the sentences below a table: what its averages are, its note, and every doubt once."""
    yield f"Percent. {OURS}: computed here; Ours: the paper's own method."
    if table.average:
        yield f"Averages are {AVERAGES[table.averaging]}."
    if table.note:
        yield table.note
    if table.flags:
        yield f"{DOUBTFUL}: contradicted by the papers' other numbers."
    for flag in {(flag.method, flag.note): flag for flag in table.flags}.values():
        yield f"{flag.method}{_columns(table, flag)}: {flag.note}."


def _columns(table: Published, flag: Flag) -> str:
    """Return which cells of its method a doubt is about, in brackets; nothing where it is about most of them."""
    found = [other.column or table.average for other in table.flags if (other.method, other.note) == (flag.method, flag.note)]
    return f" ({', '.join(filter(None, found))})" if len(found) <= len(table.columns) / 2 else ""


def _printed(table: Published, method: str, column: str) -> Cell:
    value = table.rows[method].get(column)
    if value is None:
        return None
    return f"{value:.1f}{DOUBTFUL}" if table.flags_of(method, column) else f"{value:.1f}"


def _title(table: Published) -> str:
    return f"{PAPERS[table.paper]}, table {table.number}"


def _over_seeds(runs: Runs, place: Place, table: Published) -> Cell:
    found = [_number(run, place, table) for run in runs]
    return None if None in found else over_seeds_and_images(found)


# Our numbers, in the papers' columns


def _tables(dataset: str) -> list[Published]:
    return [table for table in load_all().values() if table.benchmark == dataset]


def _ours(dataset: str, runs: Runs) -> dict[Place, Interval]:
    """Return every number of a detector that a table of the papers has, with its interval over images and over seeds."""
    found: dict[Place, Interval] = {}
    asked = [(published, place) for published in _tables(dataset) for _, place in published.cells()]
    for published, place in asked:
        own = [_number(run, place, published) for run in runs]
        if None not in own:
            spread = over_seeds_and_images(own)
            found[place] = Interval(spread.mean, spread.low, spread.high)
    return found


def _number(run: Metrics, place: Place, table: Published) -> Spread | None:
    """Return a number of a run with its 95 % interval over images; None unless every image that it needs was scored.

    ``place`` is a subset, a degradation, or a mean over the subsets of the table (its columns, or the whole benchmark).
    """
    metric, name = place
    if table.degradations:
        rows = run.get("degradations", {}).get(name, {}).get("subsets", {})
        return over_subsets(rows, _whole(table.benchmark), metric)
    if name is not None and name != table.part:
        return of_subset(run["subsets"], name, metric)
    return over_whole_run(run, list(table.columns.values()) or _whole(table.benchmark), metric)


def _whole(dataset: str) -> list[str]:
    """Return all subsets of a benchmark that the papers print."""
    whole = [table.columns.values() for table in _tables(dataset) if table.part is None and not table.degradations]
    return list(dict.fromkeys(name for names in whole for name in names))
