"""Thresholds that were set before the test, source by source of the reals; and generators against sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nullscope.evaluation.operating import OperatingPoint, SourceGrid
from nullscope.report.layout import Cell, Column, Table, detector_column


def operating_table(points: Mapping[str, Sequence[OperatingPoint]]) -> Table | None:
    """Return one row per detector and promised false-positive rate; None where there are no reals to set a threshold on."""
    sources = list(dict.fromkeys(name for own in points.values() for point in own for name in point.alarms))
    subsets = list(dict.fromkeys(name for own in points.values() for point in own for name in point.found))
    columns = [detector_column(), Column("promised", "promised", group="False alarms")]
    columns += [Column(f"alarms_{name}", name, group="False alarms, by source of the reals") for name in sources]
    columns += [Column(f"found_{name}", name, group="Fakes called fake") for name in subsets]
    rows: list[list[Cell]] = []
    for name, own in points.items():
        for point in own:
            alarms = [point.alarms.get(source) for source in sources]
            rows.append([name, point.promised, *alarms, *(point.found.get(subset) for subset in subsets)])
    if not rows:
        return None
    reals = max(point.reals for own in points.values() for point in own)
    note = (
        f"Percent, with Wilson's 95 % intervals. The threshold was set on the {reals} reals of the validation split and not "
        "moved. A source whose interval lies above the promise breaks it: what a detector does on other people's photographs is "
        "the worst column, not the mean."
    )
    return Table("operating", "Promised and achieved", note, columns, rows)


def sources_table(grids: Mapping[str, SourceGrid]) -> Table | None:
    """Return the AUROC of every generator against every source of reals; None with fewer than two sources."""
    if not grids:
        return None
    sources = list(next(iter(next(iter(grids.values())).auroc.values())))
    columns = [detector_column(), Column("subset", "Generator", "text"), *(Column(name, name) for name in sources)]
    rows: list[list[Cell]] = [
        [name, subset, *(cells[source] for source in sources)]
        for name, grid in grids.items()
        for subset, cells in grid.auroc.items()
    ]
    worst = "; ".join(f"{name} {' against '.join(grid.worst)}" for name, grid in grids.items())
    note = f"AUROC in percent, of the generator's fakes against the reals of one source at a time. The worst cells: {worst}."
    return Table("sources", "Generators against sources of reals", note, columns, rows)
