"""The tables of the training: where each loss began and ended, and the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nullscope.evaluation.history import END_SHARE, History, start_and_end
from nullscope.evaluation.seeds import over_seeds
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.tables.comparison import flat


def losses_table(histories: Mapping[str, Sequence[History]]) -> Table:
    """Return, per detector, phase and loss, the mean of the first and of the last steps."""
    columns = [detector_column(), Column("phase", "Phase", "text"), Column("loss", "Loss", "text")]
    columns += [Column("steps", "Steps", "count"), Column("start", "Start", "number"), Column("end", "End", "number")]
    rows: list[list[Cell]] = []
    for detector, runs in histories.items():
        for phase in dict.fromkeys(runs[0].phases):
            for loss in runs[0].losses:
                found = [start_and_end(run, loss, phase) for run in runs]
                if None not in found:
                    steps, starts, ends = zip(*found, strict=True)
                    rows.append([detector, phase, loss, steps[0], over_seeds(starts), over_seeds(ends)])
    note = f"Means over the first and the last {100 // END_SHARE} % of the steps; loss, the sum of the others, was minimised."
    return Table("losses", "Losses", note, columns, rows)


def parameters_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the parameters every detector was trained with, as its model folder records them: a column per detector."""
    found = {name: flat(model["params"] | {"patches": model["patches"]}) for name, model in models.items()}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    rows: list[list[Cell]] = [[key, *(values.get(key, "") for values in found.values())] for key in keys]
    columns = [Column("parameter", "Parameter", "text"), *(Column(name, name, "text") for name in models)]
    note = "What each detector was trained with; empty: it has no such parameter; -: not set."
    return Table("parameters", "Parameters", note, columns, rows)
