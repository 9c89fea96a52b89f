"""The tables of the section "What the detectors look at"."""

from __future__ import annotations

from nullscope.report.insight import Insight
from nullscope.report.layout import MARK, Cell, Column, Table, detector_column
from nullscope.report.seeds import ENOUGH, by_detector, difference, spread
from nullscope.report.semantics import SETS, Semantics
from nullscope.report.separation import CaptionsAlone
from nullscope.report.shortcut import Shortcut


def insight_tables(insight: Insight) -> list[Table]:
    """Return the tables of what the detectors look at, those that there is something to say in."""
    tables = []
    if insight.shortcut:
        tables.append(shortcut_table(insight.shortcut))
    if insight.semantics:
        tables.append(semantics_table(insight.semantics))
    if insight.captions:
        tables.append(captions_table(insight.captions))
    return tables


def shortcut_table(shortcut: Shortcut) -> Table:
    """Return one row per detector: how far the object's colour moves its score."""
    chance, runs = (0.5 - shortcut.chance, 0.5 + shortcut.chance), by_detector(shortcut.runs)
    first = next(iter(runs))
    columns = [Column("colour_auroc", "Colour AUROC", against=chance)]
    if len(runs) > 1:
        columns.append(Column("colour_auroc_difference", f"less that of {first}", "points", against=(0, 0)))
    for name, title in (("auroc", "AUROC"), ("balanced", "Balanced accuracy")):
        columns += [Column(f"{name}_agree", "colour agrees", group=title), Column(f"{name}_conflict", "conflicts", group=title)]
        columns.append(Column(f"{name}_drop", "difference", "points", group=title))
    rows: list[list[Cell]] = []
    for name, own in runs.items():
        row = [spread(own, column.key) for column in columns]
        if len(runs) > 1:
            row[1] = "" if name == first else difference(own, runs[first], "colour_auroc")
        rows.append([name, *row])
    note = (
        f"Percent, over {shortcut.pictures:,} test pictures whose caption names one colour; {shortcut.left_out:,} others are "
        f"left out. A score that knows no colour has a colour AUROC of 50 ± {100 * shortcut.chance:.1f} % on them."
    )
    if len(runs[first]) >= ENOUGH:
        note += f" {MARK}: the interval over seeds lies wholly outside of that; of a difference, outside of zero."
    return Table("shortcut", "The shortcut", note, [detector_column(), *columns], rows)


def semantics_table(semantics: Semantics) -> Table:
    """Return how well real and fake separate in both sets, in the captions and before and after the projection."""
    names = {
        "captions": "Captions alone",
        "before": f"Picture, frozen ({semantics.detector})",
        "after": f"Picture, without {semantics.removed} directions ({semantics.basis})",
    }
    columns = [Column("features", "Features of the", "text"), *(Column(word, f"{word.capitalize()} set") for word in SETS)]
    rows: list[list[Cell]] = [[title, *(semantics.auroc[kind, word] for word in SETS)] for kind, title in names.items()]
    note = (
        f"Cross-validated AUROC of a linear classifier, percent; {semantics.count} reals and as many fakes in each set; "
        "±: half the 95 % interval for so many images (Hanley and McNeil)."
    )
    return Table("semantics", "Separable by meaning?", note, columns, rows)


def captions_table(captions: CaptionsAlone) -> Table:
    """Return what a classifier of captions finds."""
    columns = [Column("classifier", "Trained on", "text"), Column("accuracy", "Accuracy")]
    columns += [Column("balanced_acc", "Balanced accuracy"), Column("auroc", "AUROC")]
    columns += [Column("n_train", "Training captions", "count"), Column("n_test", "Test captions", "count")]
    columns.append(Column("n_fake", "of them of fakes", "count"))
    numbers = [captions.accuracy, captions.balanced_accuracy, captions.auroc]
    row: list[Cell] = ["captions alone", *numbers, captions.n_train, captions.n_test, captions.n_fake]
    note = "Percent; logistic regression on the frozen text features of BLIP's captions, with no picture."
    return Table("captions_alone", "Captions alone", note, columns, [row])
