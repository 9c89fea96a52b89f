"""Thresholds that were set before the test, source by source of the reals; and generators against sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nullscope.evaluation.metrics import MAX_FPR
from nullscope.evaluation.seeds import Spread
from nullscope.evaluation.summary import Metrics, by_detector, spread
from nullscope.report.layout import Cell, Column, Table, detector_column


def operating_table(summary: Mapping[str, Metrics]) -> Table | None:
    """Return one row per detector and promised false-positive rate; None where there are no reals to set a threshold on."""
    entries = {
        (name, promised): own
        for name, runs in by_detector(summary).items()
        for key, promised in MAX_FPR.items()
        if (own := [run["frozen"][key] for run in runs if key in run.get("frozen", {})])
    }
    if not entries:
        return None
    sources, subsets = (_names(own[part] for runs in entries.values() for own in runs) for part in ("alarms", "found"))
    columns = [detector_column(), Column("promised", "promised", group="False alarms")]
    columns += [Column("alarms_worst", "worst source", group="False alarms")] if len(sources) > 1 else []
    columns += [Column(f"alarms_{name}", name, group="False alarms, by source of the reals") for name in sources]
    columns += [Column(f"found_{name}", name, group="Fakes called fake") for name in subsets]
    rows: list[list[Cell]] = []
    for (name, promised), own in entries.items():
        alarms, found = ([_rate(own, part, word) for word in words] for part, words in (("alarms", sources), ("found", subsets)))
        worst = [max((rate for rate in alarms if rate), key=lambda rate: rate.mean, default=None)] if len(sources) > 1 else []
        rows.append([name, _promised(promised, own), *worst, *alarms, *found])
    reals = max(own["reals"] for runs in entries.values() for own in runs)
    note = (
        f"Percent, with 95 % intervals. The threshold was set on the {reals} reals of the validation split and not moved. Beside "
        "the promise stands between which rates so many reals leave that of other photographs like them. A source whose interval "
        "lies above these breaks the promise: on other people's photographs a detector does what it does on the worst source."
    )
    return Table("operating", "Promised and achieved", note, columns, rows)


def degraded_operating_table(summary: Mapping[str, Metrics]) -> Table | None:
    """Return one row per detector, promised rate and degradation, at the threshold of images as they are; None without any."""
    columns = [detector_column(), Column("promised", "Promised"), Column("degradation", "Images", "text")]
    columns += [Column("alarms", "False alarms"), Column("found", "Fakes called fake")]
    rows: list[list[Cell]] = []
    for name, runs in by_detector(summary).items():
        for key, promised in MAX_FPR.items():
            own = [run["frozen"][key] for run in runs if key in run.get("frozen", {})]
            for degradation in _names(entry.get("degraded", {}) for entry in own):
                under = [entry["degraded"][degradation] for entry in own if degradation in entry["degraded"]]
                called = [spread([entry[kind] for entry in under if kind in entry], "rate") for kind in ("alarms", "found")]
                rows.append([name, _promised(promised, own), degradation, *called])
    note = (
        "Percent, with 95 % intervals, over all sources and all generators. The threshold is that of images as they are: nobody "
        "knows what an image has been through."
    )
    return Table("operating_degraded", "Promised and achieved on degraded images", note, columns, rows) if rows else None


def sources_table(summary: Mapping[str, Metrics]) -> Table | None:
    """Return the AUROC of every generator against every source of reals; None with fewer than two sources."""
    runs_of = by_detector(summary).items()
    grids = {name: [run["sources"]["auroc"] for run in runs if "sources" in run] for name, runs in runs_of}
    sources = _names(row for own in grids.values() for grid in own for row in grid.values())
    columns = [detector_column(), Column("subset", "Generator", "text"), *(Column(name, name) for name in sources)]
    rows: list[list[Cell]] = []
    lowest = []
    for name, own in grids.items():
        known = []
        for subset in _names(own):
            cells = [spread([grid[subset] for grid in own if subset in grid], source) for source in sources]
            rows.append([name, subset, *cells])
            known += [(cell.mean, subset, source) for cell, source in zip(cells, sources, strict=True) if cell]
        lowest += [f"{name} {100 * value:.1f} ({subset} against {source})" for value, subset, source in sorted(known)[:1]]
    if not rows:
        return None
    note = (
        f"AUROC in percent, of the generator's fakes against the reals of one source at a time. The lowest: {'; '.join(lowest)}."
    )
    return Table("sources", "Generators against sources of reals", note, columns, rows)


def _promised(rate: float, entries: Sequence[Mapping[str, Any]]) -> Spread:
    """Return a promised rate with what is to be expected on other photographs, the mean over seeds."""
    low, high = (sum(own[f"expected_{end}"] for own in entries) / len(entries) for end in ("low", "high"))
    return Spread(rate, low, high, len(entries), "interval")


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all, in the order in which they come first."""
    return list(dict.fromkeys(name for own in mappings for name in own))


def _rate(entries: Sequence[Mapping[str, Any]], part: str, word: str) -> Spread | None:
    return spread([own[part][word] for own in entries if word in own[part]], "rate")
