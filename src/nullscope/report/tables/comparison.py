"""The comparison of the detectors over their seeds, with the parameters in which they differ: the papers' ablation tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nullscope.core.config import leaves
from nullscope.evaluation.paired import Tables, compare
from nullscope.evaluation.seeds import ENOUGH
from nullscope.evaluation.summary import Metrics, by_detector, spread
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.tables.pairs import cell_of, tested_note

COMPARED = ("auroc_unseen", "f_acc_unseen")  # the numbers whose difference to the first detector is shown
PARAMETERS = "Parameters that differ"


def comparison_table(
    summary: Mapping[str, Metrics], models: Mapping[str, Mapping[str, Any]], tables: Tables, fixed: frozenset[str]
) -> Table:
    """Return one row per detector: the parameters in which the detectors differ, the numbers, the differences to the first.

    ``tables``, ``fixed``: as in `paired.compare`.
    """
    runs = by_detector(summary)
    first = next(iter(runs))
    parameters = differing(models)
    settings = [Column(key, key, "text", group=PARAMETERS) for key in parameters]
    numbers = [
        Column("r_acc", "Reals right", best="max"),
        Column("f_acc_seen", "seen", group="Fakes found", best="max"),
        Column("f_acc_unseen", "unseen", group="Fakes found", best="max"),
        Column("tpr_5_unseen", "unseen, at 5 % false alarms", group="Fakes found", best="max"),
        Column("auroc_seen", "seen", group="AUROC", best="max"),
        Column("auroc_unseen", "unseen", group="AUROC", best="max"),
        Column("ap_unseen", "unseen", group="AP", best="max"),
        Column("mean_balanced", "Balanced accuracy", best="max"),
    ]
    titles = dict(zip(COMPARED, ("AUROC unseen", "fakes found unseen"), strict=True))
    less = {key: differences_to(first, tables, key, fixed) for key in COMPARED}
    differences = [
        Column(f"{key}_difference", titles[key], "points", f"Difference to {first}", tested=True) for key in COMPARED if less[key]
    ]
    rows: list[list[Cell]] = []
    for name, own in runs.items():
        own_parameters = [values[name] for values in parameters.values()]
        own_numbers = [spread(own, column.key) for column in numbers]
        own_differences = ["" if name == first else less[key][name] for key in COMPARED if less[key]]
        rows.append([name, *own_parameters, *own_numbers, *own_differences])
    return Table("comparison", "Comparison", _note(runs), [detector_column(), *settings, *numbers, *differences], rows)


def differing(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the parameters that all detectors have and in which they differ: dotted name -> detector -> value."""
    values = {name: flat(model["params"]) for name, model in models.items()}
    shared = [key for key in next(iter(values.values())) if all(key in own for own in values.values())]
    table = {key: {name: own[key] for name, own in values.items()} for key in shared}
    return {key: own for key, own in table.items() if len(set(own.values())) > 1}


def flat(values: Mapping[str, Any]) -> dict[str, str]:
    """Return nested parameters under their dotted names, as text; one that is not set is a dash."""
    return {name: "-" if value is None else str(value) for name, value in leaves(values)}


def differences_to(first: str, tables: Tables, key: str, fixed: frozenset[str]) -> dict[str, Cell]:
    """Return the difference of every other detector to ``first``, tested together; nothing where one lacks the number."""
    others = [name for name in tables if name != first]
    if not all(key in table.column_names for own in tables.values() for table in own):
        return {}
    found = compare(tables, [(name, first, key) for name in others], fixed=fixed)
    return {name: cell_of(own) for name, own in zip(others, found, strict=True)}


def _note(runs: dict[str, list[Any]]) -> str:
    seeds = max(len(own) for own in runs.values())
    note = f"Percent, {said_of(seeds)}."
    if len(runs) > 1:
        note += f" On the right, the difference to {next(iter(runs))} in points. {tested_note('the column', [seeds >= ENOUGH])}"
    return note


def said_of(seeds: int) -> str:
    """Return what the intervals of numbers over so many seeds are of."""
    if seeds == 1:
        return "one run each, with 95 % intervals over images"
    if seeds < ENOUGH:
        return f"means over {seeds} seeds, with 95 % intervals over images"
    return f"means over {seeds} seeds, with 95 % intervals over seeds and images"
