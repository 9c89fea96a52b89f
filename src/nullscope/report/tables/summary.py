"""The first tables of the page: the summary, and the ways of averaging beside each other."""

from __future__ import annotations

from collections.abc import Mapping

from nullscope.evaluation.curves import Curves
from nullscope.evaluation.seeds import over_seeds
from nullscope.evaluation.summary import Metrics, by_detector, spread
from nullscope.report.layout import Cell, Column, Table, detector_column


def summary_table(summary: Mapping[str, Metrics]) -> Table:
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


def averages_table(summary: Mapping[str, Metrics], curves: Mapping[str, Curves]) -> Table:
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
