"""The report's tables, in their order, and those of metrics, histories and models (`layout` writes them)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from rich.console import Console

from nullscope.report.audit import audit_tables
from nullscope.report.comparison import comparison_table, flat
from nullscope.report.curves import Curves
from nullscope.report.dataset_tables import index_table, refused_table, unexpected_table
from nullscope.report.inputs import History, Inputs, Metrics
from nullscope.report.insight_tables import insight_tables
from nullscope.report.layout import Cell, Column, Spread, Table, detector_column, print_table, yes_no
from nullscope.report.pairs import pairs_table
from nullscope.report.papers import paper_tables, scorecard_table
from nullscope.report.provenance import data_table, licence_table, marked, official, origins_table
from nullscope.report.robustness import robustness_tables
from nullscope.report.seeds import by_detector, over_seeds, spread

SEEN, UNSEEN = "seen", "unseen"  # was the generator in the training set?
END_SHARE = 20  # the first and the last 1/20 of the steps stand for the start and the end of a training


# From metrics to rows


def build_tables(inputs: Inputs) -> list[Table]:
    """Return every table of the report, in its order. Official weights are marked wherever a detector's name stands."""
    dataset, pages = inputs.provenance.dataset, [own["params"].get("method", name) for name, own in inputs.models.items()]
    optional = [pairs_table(inputs.resamples, inputs.answers), scorecard_table(dataset, inputs.summary)]
    tables = [
        summary_table(inputs.summary),
        comparison_table(inputs.summary, inputs.models),
        *(table for table in optional if table),
        *robustness_tables(inputs.summary),
        *paper_tables(dataset, inputs.summary),
        averages_table(inputs.summary, inputs.curves),
        per_generator_table(inputs.summary, "f_acc"),
        per_generator_table(inputs.summary, "ap"),
        runs_table(inputs.summary),
        losses_table(inputs.histories),
        index_table(inputs.counts),
        refused_table(inputs.refused),
        parameters_table(inputs.models),
        *insight_tables(inputs.insight),
        *audit_tables(inputs.audit),
        unexpected_table(inputs.index.get("unexpected", {})),
        origins_table(inputs.summary, inputs.models, inputs.provenance),
        data_table(inputs.provenance),
        licence_table(dataset, pages),
    ]
    return [marked(table, official(inputs.models)) for table in tables]


def summary_table(summary: dict[str, Metrics]) -> Table:
    """Return one row per detector with the numbers to look at first."""
    columns = [
        Column("r_acc", "Reals called real", best="max"),
        Column("f_acc_seen", "seen generators", group="Fakes called fake", best="max"),
        Column("f_acc_unseen", "unseen generators", group="Fakes called fake", best="max"),
        Column("mean_balanced", "Balanced accuracy", best="max"),
        Column("ap", "Average precision", best="max"),
        Column("auroc", "AUROC", best="max"),
        Column("ece", "Calibration error", best="min"),
    ]
    note = "Percent; unweighted means over the test subsets, calibration error over all test images. Bold: the best of a column."
    rows = [[detector, *(spread(runs, column.key) for column in columns)] for detector, runs in by_detector(summary).items()]
    return Table("summary", "Summary", note, [detector_column(), *columns], rows)


def averages_table(summary: dict[str, Metrics], curves: dict[str, Curves]) -> Table:
    """Return the papers' ways of averaging beside each other, and what a detector finds at few false alarms."""
    averages, pooled = "Mean over subsets", "All test images at once"
    columns = [
        Column("mean_real_fakes", "reals + fakes (papers' mAcc)", group=averages),
        Column("mean_fakes", "fakes only", group=averages),
        Column("mean_balanced", "balanced", group=averages),
        Column("acc", "accuracy", group=averages),
        Column("balanced_acc", "balanced accuracy", group=pooled),
        Column("auroc_pooled", "AUROC", group=pooled),
        Column("tpr_at_fpr_1", "fakes found at 1 % false alarms", group=pooled),
        Column("tpr_at_fpr_5", "fakes found at 5 % false alarms", group=pooled),
    ]
    rows: list[list[Cell]] = []
    for detector, runs in by_detector(summary).items():
        own = curves[detector]
        ranked = [over_seeds(values) for values in (own.auroc_S, own.tpr_1_S, own.tpr_5_S)]
        rows.append([detector, *(spread(runs, column.key) for column in columns[:5]), *ranked])
    note = "Percent. The papers print three different means under one name; compare like with like."
    return Table("averages", "Averages and operating points", note, [detector_column(), *columns], rows)


def per_generator_table(summary: dict[str, Metrics], key: Literal["f_acc", "ap"]) -> Table:
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


def runs_table(summary: dict[str, Metrics]) -> Table:
    """Return one row per run and subset: every number of every subset, with the 95 % interval and the counts."""
    rates = {"r_acc": "Real acc.", "f_acc": "Fake acc.", "acc": "Accuracy", "balanced_acc": "Balanced", "ap": "AP"}
    rates |= {"auroc": "AUROC", "tpr_1": "TPR at 1 % FPR", "tpr_5": "TPR at 5 % FPR", "ece": "Calibration error"}
    columns = [Column("run", "Run", "text"), Column("subset", "Subset", "text"), Column("seen", "Seen", "text")]
    columns += [Column(key, title) for key, title in rates.items()]
    columns += [Column("n_real", "Reals", "count"), Column("n_fake", "Fakes", "count")]
    rows: list[list[Cell]] = [
        [run, name, yes_no(row.get("seen")), *(_interval(row, key) for key in rates), row["n_real"], row["n_fake"]]
        for run, metrics in summary.items()
        for name, row in sorted(metrics["subsets"].items())
    ]
    note = (
        "Percent; ±: half the 95 % interval, Wilson's for shares of images, bootstrap for the others; the CSV has its ends. A "
        "subset without reals is judged against those it is told to, or the shared ones."
    )
    return Table("runs", "Every run on every subset", note, columns, rows)


def losses_table(histories: dict[str, list[History]]) -> Table:
    """Return, per detector, phase and loss, where training began and where it ended."""
    columns = [detector_column(), Column("phase", "Phase", "text"), Column("loss", "Loss", "text")]
    columns += [Column("steps", "Steps", "count"), Column("start", "Start", "number"), Column("end", "End", "number")]
    rows: list[list[Cell]] = []
    for detector, runs in histories.items():
        for phase in dict.fromkeys(runs[0].phases):
            for loss in runs[0].losses:
                values = [_of_phase(run, phase, loss) for run in runs]
                if all(len(own) for own in values):
                    start, end = (np.array([_end(own[::order]) for own in values]) for order in (1, -1))
                    rows.append([detector, phase, loss, len(values[0]), over_seeds(start), over_seeds(end)])
    note = f"Means over the first and the last {100 // END_SHARE} % of the steps; loss, the sum of the others, was minimised."
    return Table("losses", "Losses", note, columns, rows)


def parameters_table(models: dict[str, dict[str, Any]]) -> Table:
    """Return the parameters every detector was trained with, as its model directory records them: a column per detector."""
    found = {name: flat(model["params"] | {"patches": model["patches"]}) for name, model in models.items()}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    rows: list[list[Cell]] = [[key, *(values.get(key, "") for values in found.values())] for key in keys]
    columns = [Column("parameter", "Parameter", "text"), *(Column(name, name, "text") for name in models)]
    note = "What each detector was trained with; empty: it has no such parameter; -: not set."
    return Table("parameters", "Parameters", note, columns, rows)


def print_summary(summary: dict[str, Metrics], console: Console) -> None:
    """Print the accuracy per generator of all runs (the content of metrics/summary.json) to the terminal."""
    print_table(per_generator_table(summary, "f_acc"), console)


# Over subsets


def subsets_of(summary: dict[str, Metrics]) -> dict[str, bool]:
    """Return the subsets with fakes and whether their generator was trained on: the seen ones first, then by name."""
    found = {name: row["seen"] for metrics in summary.values() for name, row in metrics["subsets"].items() if row["n_fake"]}
    return dict(sorted(found.items(), key=lambda item: (not item[1], item[0])))


def _of_phase(run: History, phase: str, loss: str) -> np.ndarray:
    values = run.losses[loss][np.array(run.phases) == phase]
    return values[np.isfinite(values)]


def _end(values: np.ndarray) -> float:
    return float(values[: max(1, len(values) // END_SHARE)].mean())


def _interval(row: dict[str, float], key: str) -> Cell:
    """Return a number of one subset with its 95 % interval, or none where it is not defined."""
    if key not in row:
        return None
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return row[key] if low is None or high is None else Spread(row[key], low, high, 1, "interval")
