"""The first tables of the page: the summary, and the ways of averaging beside each other."""

from __future__ import annotations

from collections.abc import Mapping

from nullscope.evaluation.curves import Curves
from nullscope.evaluation.prevalence import PREVALENCES, predictive_values
from nullscope.evaluation.seeds import over_seeds
from nullscope.evaluation.summary import Metrics, by_detector, forecast, spread
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.tables.comparison import said_of


def summary_table(summary: Mapping[str, Metrics]) -> Table:
    """Return one row per detector with the numbers to look at first."""
    columns = [
        Column("r_acc", "Reals called real", best="max"),
        Column("f_acc_seen", "seen generators", group="Fakes called fake", best="max"),
        Column("f_acc_unseen", "unseen generators", group="Fakes called fake", best="max"),
        Column("mean_balanced", "Balanced accuracy", best="max"),
        Column("ap", "Average precision", best="max"),
        Column("auroc", "AUROC", best="max"),
        Column("brier", "Brier score", "number", best="min"),
    ]
    seeds = max(map(len, by_detector(summary).values()))
    note = (
        f"Percent, {said_of(seeds)}; unweighted means over the test subsets. Brier score: of all test images, half of the weight "
        "on the fakes; 0 is best, 0.25 is saying one half. Bold: the best of a column."
    )
    rows = [[detector, *(spread(runs, column.key) for column in columns)] for detector, runs in by_detector(summary).items()]
    return Table("summary", "Summary", note, [detector_column(), *columns], rows)


def forecast_table(summary: Mapping[str, Metrics]) -> Table | None:
    """Return what other images and what other generators would give; None with fewer than three unseen generators."""
    columns = [detector_column()]
    titles = {"auroc_unseen": "AUROC", "f_acc_unseen": "Fakes found", "tpr_5_unseen": "Fakes found at 5 % false alarms"}
    titles |= {"balanced_acc_unseen": "Balanced accuracy"}
    rows = [
        [name, *(cell for key in titles for cell in (spread(runs, key), forecast(runs, key)))]
        for name, runs in by_detector(summary).items()
    ]
    if not any(row[2::2] != [None] * len(titles) for row in rows):
        return None
    for key, title in titles.items():
        columns += [Column(key, "other images", group=title), Column(f"{key}_generators", "other generators", group=title)]
    note = (
        "Percent; the same mean over the unseen generators twice, with two 95 % intervals. Other images: of these generators. "
        "Other generators: these are taken for a sample of those to come, which is what a user meets; a kind that is not among "
        "them is not foreseen."
    )
    return Table("forecast", "Other images, other generators", note, columns, rows)


def prevalence_table(summary: Mapping[str, Metrics]) -> Table | None:
    """Return how often a detector is right when it says fake, or real, where few of the images are fake; None without either."""
    columns = [detector_column()]
    for share in PREVALENCES:
        group = f"{100 * share:.0f} % of the images are fake"
        columns += [Column(f"ppv_{100 * share:.0f}", "fake, of those called fake", group=group)]
        columns += [Column(f"npv_{100 * share:.0f}", "real, of those called real", group=group)]
    rows: list[list[Cell]] = []
    for name, runs in by_detector(summary).items():
        reals, fakes = spread(runs, "r_acc"), spread(runs, "f_acc")
        if reals and fakes:
            rows.append([name, *(cell for share in PREVALENCES for cell in predictive_values(reals, fakes, share))])
    note = (
        "Percent of the images called fake that are fake, and of those called real that are real, at the threshold of logit 0, "
        "from the mean shares of reals and fakes that are called right. Where fakes are rare, most alarms are false ones."
    )
    return Table("prevalence", "Predictive values", note, columns, rows) if rows else None


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
        ranked = [over_seeds(values) if values is not None else None for values in (own.auroc_S, own.tpr_1_S, own.tpr_5_S)]
        rows.append([detector, *(spread(runs, column.key) for column in columns[:5]), *ranked])
    note = "Percent. The papers print three different means under one name; compare like with like."
    return Table("averages", "Averages and operating points", note, [detector_column(), *columns], rows)
