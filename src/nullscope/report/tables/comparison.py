"""The comparison of the detectors over their seeds, with the parameters in which they differ: the papers' ablation tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nullscope.core.config import leaves
from nullscope.evaluation.seeds import ENOUGH
from nullscope.evaluation.summary import Metrics, by_detector, difference, mean_of
from nullscope.report.layout import MARK, Cell, Column, Table, detector_column
from nullscope.report.project import is_official

COMPARED = ("auroc_unseen", "f_acc_unseen")  # the numbers whose difference to the first detector is shown
PARAMETERS = "Parameters that differ"


def comparison_table(summary: Mapping[str, Metrics], models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row per detector: the parameters in which the detectors differ, the numbers, the differences to the first."""
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
    differences = [
        Column(f"{key}_difference", titles[key], "points", f"Difference to {first}", against=(0, 0)) for key in COMPARED
    ]
    differences = differences if len(runs) > 1 else []
    rows: list[list[Cell]] = []
    for name, own in runs.items():
        own_parameters = [values[name] for values in parameters.values()]
        own_numbers = [mean_of(own, column.key) for column in numbers]
        own_differences = ["" if name == first else difference(own, runs[first], key) for key in COMPARED if differences]
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


def _note(runs: dict[str, list[Any]]) -> str:
    first = next(iter(runs))
    seeds = len(runs[first])
    if is_official(first):
        return "Percent."
    if seeds < ENOUGH:
        return f"Percent; means over {seeds} seeds. Intervals need {ENOUGH} seeds." if seeds > 1 else "Percent; one seed."
    note = f"Percent; means over {seeds} seeds ± half their 95 % interval (Student's t)."
    if len(runs) > 1:
        note += f" On the right, the difference to {first} in points, paired by seed; {MARK}: its interval excludes zero."
    if any(map(is_official, runs)):
        note += f" Released weights are compared with every seed of {first}."
    return note
