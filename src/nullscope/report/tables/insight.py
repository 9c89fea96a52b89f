"""The tables of the section "What the detectors look at", each with the paragraph above it."""

from __future__ import annotations

from nullscope.evaluation.seeds import ENOUGH
from nullscope.evaluation.semantics import SETS, Semantics
from nullscope.evaluation.separation import CaptionsAlone
from nullscope.evaluation.shortcut import Shortcut
from nullscope.evaluation.summary import by_detector, difference, spread
from nullscope.report.layout import MARK, Cell, Column, Table, detector_column
from nullscope.report.sentences import listed
from nullscope.world.scenes import FAKE_COLOURS, REAL_COLOURS


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
    """Return how well real and fake separate in both sets: by captions, and by pictures before and after the projection."""
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
    """Return how well a classifier of captions tells real from fake."""
    columns = [Column("classifier", "Trained on", "text"), Column("accuracy", "Accuracy")]
    columns += [Column("balanced_acc", "Balanced accuracy"), Column("auroc", "AUROC")]
    columns += [Column("n_train", "Training captions", "count"), Column("n_test", "Test captions", "count")]
    columns.append(Column("n_fake", "of them of fakes", "count"))
    numbers = [captions.accuracy, captions.balanced_accuracy, captions.auroc]
    row: list[Cell] = ["captions alone", *numbers, captions.n_train, captions.n_test, captions.n_fake]
    note = "Percent; logistic regression on the frozen text features of BLIP's captions, with no picture."
    return Table("captions_alone", "Captions alone", note, columns, [row])


def colours_paragraph(shortcut: Shortcut) -> str:
    """Return what the colour told in training."""
    if not shortcut.share:
        return (
            "This is the control: the object's colour told nothing in training. What is found here is chance in these few test "
            "pictures, or what colours do to a score by themselves."
        )
    return (
        f"In {100 * shortcut.share:.4g} % of the training pictures the colour of the object told the label: there it was "
        f"{listed(REAL_COLOURS)} for reals and {listed(FAKE_COLOURS)} for fakes, each at random; in the others, and in "
        "testing, any of the six for both."
    )


def captions_paragraph(found: CaptionsAlone) -> str:
    """Return how well a classifier of captions tells real from fake."""
    return (
        f"A linear classifier that sees only the frozen text features of {found.n_train:,} training captions is right on "
        f"{100 * found.accuracy:.1f} % of {found.n_test:,} test captions ({100 * found.n_fake / found.n_test:.0f} % of them of "
        f"fakes); its balanced accuracy is {100 * found.balanced_accuracy:.1f} %, its AUROC {100 * found.auroc:.1f} %. "
        "DGS-Net reports an accuracy of about 60 % on its data."
    )
