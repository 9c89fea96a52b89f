"""What the files give away (`evaluation.file_audit`): tables, warnings for the head of the page, lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nullscope.evaluation.file_audit import ALL, CHANCE, FACTS, SHORTCUT, shortcuts
from nullscope.report.layout import MARK, Cell, Column, Spread, Table

Audit = Mapping[str, Any]  # the content of metrics/audit.json
TITLES = {
    "format": "file format",
    "size": "picture size",
    "bytes_per_pixel": "bytes per pixel",
    "jpeg_quality": "JPEG quality",
    ALL: "all together",
}
TRAINING = "training split"
REMEDY = "The parameter `shard.prepare` makes files alike before any patch is cut: see docs/audit.md."


def audit_tables(audit: Audit) -> list[Table]:
    """Return the tables of the audit; that of the transfer only where there is something in it."""
    carried = transfer_table(audit)
    return [shortcuts_table(audit), *([carried] if carried.rows else []), files_table(audit)]


def shortcuts_table(audit: Audit) -> Table:
    """Return how well facts of the files tell the label within the training split and each test subset."""
    note = (
        "Balanced accuracy, percent, of a small classifier that sees nothing but these facts, cross-validated; 50 is chance. "
        f"{MARK}: its 95 % interval lies above chance. A shortcut: above {100 * SHORTCUT:.0f}, and marked."
    )
    if audit["too_few"]:
        note += f" Left out for too few images of a kind: {audit['too_few']}."
    rows = list(_rates({TRAINING: audit["train"]} | audit["test"]["subsets"], "cross_validated"))
    return Table("audit_shortcuts", "What the files give away", note, _columns((0, CHANCE)), rows)


def transfer_table(audit: Audit) -> Table:
    """Return how well what the files of the training split teach tells the label in each test subset."""
    note = (
        "As above, the classifier fitted to the training split: what a detector could have learnt from the files. "
        "Below 50, the files of this subset say the opposite."
    )
    rows = list(_rates(audit["test"]["subsets"], "transfer"))
    return Table("audit_transfer", "What the training files teach about the test files", note, _columns((CHANCE, CHANCE)), rows)


def files_table(audit: Audit) -> Table:
    """Return what the files are: formats and sizes per split, subset and kind."""
    columns = [Column(key, key.capitalize(), "text") for key in ("split", "subset", "kind")]
    columns += [Column("images", "Images", "count"), Column("formats", "Formats", "text")]
    columns += [Column("width", "Width", "count"), Column("height", "Height", "count")]
    columns.append(Column("bytes_per_pixel", "Bytes per pixel", "number"))
    rows: list[list[Cell]] = []
    for split in ("train", "test"):
        for subset, own in audit[split]["subsets"].items():
            for kind in ("real", "fake"):
                if kind in own:
                    facts, count = own[kind], own[f"n_{kind}"]
                    sizes = [_spread(facts[side], whole=True) for side in ("width", "height")]
                    middle = _spread(facts["bytes_per_pixel"], whole=False)
                    rows.append([split, subset, kind, count, _formats(facts["formats"], count), *sizes, middle])
    note = "Of sizes, in pixels, the median and what the middle 90 % span (in the CSV: _min and _max)."
    return Table("audit_files", "What the files are", note, columns, rows)


def warnings(audit: Audit) -> list[str]:
    """Return what a reader must know before the results, the most important first; nothing where the files tell nothing."""
    found = [line for line in (_within(audit), _training(audit)) if line]
    told = [*found, _carried(audit), REMEDY] if found else []
    return [line for line in (*told, _leaked(audit)) if line]


def shortcut_lines(audit: Audit) -> list[str]:
    """Return a line per shortcut, the strongest first."""
    found = []
    for name, own in ({TRAINING: audit["train"]} | audit["test"]["subsets"]).items():
        for fact in _telling(own):
            rate = own["cross_validated"][fact]
            interval = f"95 %: {100 * rate['low']:.1f} to {100 * rate['high']:.1f}"
            line = f"{name}: {TITLES[fact]} tells real from fake, {_percent(rate)} balanced accuracy ({interval})"
            found.append((-rate["balanced_acc"], line))
    return [line for _, line in sorted(found)]


# Tables


def _columns(chance: tuple[float, float]) -> list[Column]:
    rates = [Column(fact, TITLES[fact][0].upper() + TITLES[fact][1:], against=chance) for fact in FACTS]
    return [Column("subset", "Subset", "text"), *rates, Column("shortcuts", "Shortcuts", "text")]


def _rates(judged: Mapping[str, Any], by: str) -> Iterator[list[Cell]]:
    for name, own in judged.items():
        if by in own:
            rates = [own[by][fact] for fact in FACTS]
            cells = [Spread(rate["balanced_acc"], rate["low"], rate["high"], 1, "interval") for rate in rates]
            yield [name, *cells, ", ".join(TITLES[fact] for fact in _telling(own, by))]


def _spread(ends: Mapping[str, float], *, whole: bool) -> Spread:
    kind = round if whole else float
    return Spread(kind(ends["median"]), kind(ends["p5"]), kind(ends["p95"]), 1, "range")


def _formats(counts: Mapping[str, int], total: int) -> str:
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return ", ".join(f"{name} {100 * counts[name] / total:.3g} %" for name in ordered)


# Sentences


def _telling(own: Mapping[str, Any], by: str = "cross_validated") -> list[str]:
    """Return the shortcuts that are news: all facts together are none where one of them is a shortcut by itself."""
    found = shortcuts(own, by)
    return [fact for fact in found if fact != ALL] or found


def _within(audit: Audit) -> str:
    judged = {name: own for name, own in audit["test"]["subsets"].items() if "cross_validated" in own}
    parts = []
    for fact in FACTS:
        found = {name: own["cross_validated"][fact] for name, own in judged.items() if fact in _telling(own)}
        if found:
            worst = max(found, key=lambda name: found[name]["balanced_acc"])
            where = f"in {len(found)} of {len(judged)} test subsets" if not parts else f"in {len(found)}"
            unit = " balanced accuracy" if not parts else ""
            parts.append(f"{TITLES[fact]} {where} ({_percent(found[worst])}{unit} in {worst})")
    if not parts:
        return ""
    return f"Without a look at a pixel, facts of the files tell real from fake: {', '.join(parts)}."


def _training(audit: Audit) -> str:
    rates = [f"{TITLES[fact]} {_percent(audit['train']['cross_validated'][fact])}" for fact in _telling(audit["train"])]
    if not rates:
        return ""
    return (
        f"In the training split the files tell real from fake ({', '.join(rates)} balanced accuracy): a detector may learn the "
        "file in place of the picture."
    )


def _carried(audit: Audit) -> str:
    """Return to how many test subsets the lesson of the training files carries."""
    judged = {name: own for name, own in audit["test"]["subsets"].items() if "transfer" in own}
    if not judged:
        return ""
    best = {name: max((own["transfer"][fact] for fact in FACTS), key=_rate) for name, own in judged.items()}
    found = {name: best[name] for name, own in judged.items() if shortcuts(own, "transfer")}
    most = max(found or best, key=lambda name: _rate(best[name]))
    if not found:
        return f"What the training files teach tells nothing in the test subsets (at most {_percent(best[most])}, in {most})."
    return (
        f"What the training files teach tells real from fake in {len(found)} of {len(judged)} test subsets (up to "
        f"{_percent(found[most])} balanced accuracy, in {most}): no result there shows that a detector looked at the picture."
    )


def _leaked(audit: Audit) -> str:
    if not audit["leakage"]:
        return ""
    inside = {name: own["leakage"] for name, own in audit["test"]["subsets"].items() if own["leakage"]}
    most = max(inside, key=lambda name: inside[name])
    return f"{audit['leakage']:,} test images also lie in the training split, {inside[most]:,} of them in {most}."


def _rate(values: Mapping[str, float]) -> float:
    return values["balanced_acc"]


def _percent(values: Mapping[str, float]) -> str:
    return f"{100 * values['balanced_acc']:.1f} %"
