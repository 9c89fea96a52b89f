"""File bias (`evaluation.file_bias`): tables, warnings for the head of the page, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nullscope.core.contracts import SPLITS
from nullscope.evaluation.file_bias import ALL, BIASED, CHANCE, FACTS, biased_facts
from nullscope.evaluation.seeds import Spread
from nullscope.report.layout import MARK, Cell, Column, Table

FileBias = Mapping[str, Any]  # the content of metrics/audit.json: what `measure_file_bias` returns
TITLES = {
    "format": "file format",
    "size": "picture size",
    "bytes_per_pixel": "bytes per pixel",
    "jpeg_quality": "JPEG quality",
    ALL: "all together",
}
TRAINING = "training split"
REMEDY = "The parameter `shard.prepare` makes files alike before any patch is cut: see docs/audit.md."


def file_bias_tables(measured: FileBias) -> list[Table]:
    """Return the tables of file bias, without that of the transfer if it has no rows."""
    transfer = transfer_table(measured)
    return [within_table(measured), *([transfer] if transfer.rows else []), files_table(measured)]


def within_table(measured: FileBias) -> Table:
    """Return how well facts of the files tell the label, within the training split and within each test subset."""
    note = (
        "Balanced accuracy, percent, of a small classifier that sees nothing but these facts, cross-validated; 50 is chance. "
        f"{MARK}: its 95 % interval lies above chance. Biased: the facts above {100 * BIASED:.0f}, and marked."
    )
    if measured["too_few"]:
        note += f" Left out for too few images of a kind: {measured['too_few']}."
    rows = list(_rates({TRAINING: measured["train"]} | measured["test"]["subsets"], "cross_validated"))
    return Table("file_bias", "File bias", note, _columns((0, CHANCE)), rows)


def transfer_table(measured: FileBias) -> Table:
    """Return how well what the files of the training split teach tells the label in each test subset."""
    note = (
        "As above, but the classifier is fitted to the files of the training split: what a detector could have learnt from them. "
        "Below 50: the files of this subset teach the opposite."
    )
    rows = list(_rates(measured["test"]["subsets"], "transfer"))
    return Table("file_bias_transfer", "File bias learnt from the training split", note, _columns((CHANCE, CHANCE)), rows)


def files_table(measured: FileBias) -> Table:
    """Return what the files are: formats and sizes per split, subset and kind."""
    columns = [Column(key, key.capitalize(), "text") for key in ("split", "subset", "kind")]
    columns += [Column("images", "Images", "count"), Column("formats", "Formats", "text")]
    columns += [Column("width", "Width", "count"), Column("height", "Height", "count")]
    columns.append(Column("bytes_per_pixel", "Bytes per pixel", "number"))
    rows: list[list[Cell]] = []
    for split in (split for split in SPLITS if split in measured):
        for subset, own in measured[split]["subsets"].items():
            for kind in ("real", "fake"):
                if kind in own:
                    facts, count = own[kind], own[f"n_{kind}"]
                    sizes = [_spread(facts[side], whole=True) for side in ("width", "height")]
                    middle = _spread(facts["bytes_per_pixel"], whole=False)
                    rows.append([split, subset, kind, count, _formats(facts["formats"], count), *sizes, middle])
    note = "Of sizes, in pixels, the median and what the middle 90 % span (in the CSV: _min and _max)."
    return Table("files", "What the files are", note, columns, rows)


def warnings(measured: FileBias) -> list[str]:
    """Return what a reader must know before the results, the most important first; nothing if the files tell nothing."""
    found = [line for line in (_within(measured), _training(measured)) if line]
    lines = [*found, _transfer(measured), REMEDY] if found else []
    return [line for line in (*lines, _leaked(measured)) if line]


def warning_lines(measured: FileBias) -> list[str]:
    """Return a line per fact that tells the label of a split or subset, the strongest first."""
    found = []
    for name, own in ({TRAINING: measured["train"]} | measured["test"]["subsets"]).items():
        for fact in _main_facts(own):
            rate = own["cross_validated"][fact]
            interval = f"95 %: {100 * rate['low']:.1f} to {100 * rate['high']:.1f}"
            line = f"{name}: {TITLES[fact]} tells real from fake, {_percent(rate)} balanced accuracy ({interval})"
            found.append((-rate["balanced_acc"], line))
    return [line for _, line in sorted(found)]


# Tables


def _columns(chance: tuple[float, float]) -> list[Column]:
    rates = [Column(fact, TITLES[fact][0].upper() + TITLES[fact][1:], against=chance) for fact in FACTS]
    return [Column("subset", "Subset", "text"), *rates, Column("biased", "Biased", "text")]


def _rates(measured: Mapping[str, Any], by: str) -> Iterator[list[Cell]]:
    for name, own in measured.items():
        if by in own:
            rates = [own[by][fact] for fact in FACTS]
            cells = [Spread(rate["balanced_acc"], rate["low"], rate["high"], 1, "interval") for rate in rates]
            yield [name, *cells, ", ".join(TITLES[fact] for fact in _main_facts(own, by))]


def _spread(ends: Mapping[str, float], *, whole: bool) -> Spread:
    kind = round if whole else float
    return Spread(kind(ends["median"]), kind(ends["p5"]), kind(ends["p95"]), 1, "range")


def _formats(counts: Mapping[str, int], total: int) -> str:
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return ", ".join(f"{name} {100 * counts[name] / total:.3g} %" for name in ordered)


# Sentences


def _main_facts(own: Mapping[str, Any], by: str = "cross_validated") -> list[str]:
    """Return `biased_facts`, without all facts together where one of them is biased by itself."""
    found = biased_facts(own, by)
    return [fact for fact in found if fact != ALL] or found


def _within(measured: FileBias) -> str:
    subsets = {name: own for name, own in measured["test"]["subsets"].items() if "cross_validated" in own}
    parts = []
    for fact in FACTS:
        found = {name: own["cross_validated"][fact] for name, own in subsets.items() if fact in _main_facts(own)}
        if found:
            worst = max(found, key=lambda name: found[name]["balanced_acc"])
            where = f"in {len(found)} of {len(subsets)} test subsets" if not parts else f"in {len(found)}"
            unit = " balanced accuracy" if not parts else ""
            parts.append(f"{TITLES[fact]} {where} ({_percent(found[worst])}{unit} in {worst})")
    if not parts:
        return ""
    return f"Without a look at a pixel, facts of the files tell real from fake: {', '.join(parts)}."


def _training(measured: FileBias) -> str:
    rates = [f"{TITLES[fact]} {_percent(measured['train']['cross_validated'][fact])}" for fact in _main_facts(measured["train"])]
    if not rates:
        return ""
    return (
        f"In the training split the files tell real from fake ({', '.join(rates)} balanced accuracy): a detector may learn the "
        "file in place of the picture."
    )


def _transfer(measured: FileBias) -> str:
    """Return in how many test subsets a classifier of the training files tells the label."""
    subsets = {name: own for name, own in measured["test"]["subsets"].items() if "transfer" in own}
    if not subsets:
        return ""
    best = {name: max((own["transfer"][fact] for fact in FACTS), key=_rate) for name, own in subsets.items()}
    found = {name: best[name] for name, own in subsets.items() if biased_facts(own, "transfer")}
    most = max(found or best, key=lambda name: _rate(best[name]))
    if not found:
        return f"A classifier of the training files is at chance in the test subsets (at most {_percent(best[most])}, in {most})."
    return (
        f"A classifier of the training files tells real from fake in {len(found)} of {len(subsets)} test subsets (up to "
        f"{_percent(found[most])} balanced accuracy, in {most}): no result there shows that a detector looked at the picture."
    )


def _leaked(measured: FileBias) -> str:
    if not measured["leakage"]:
        return ""
    inside = {name: own["leakage"] for name, own in measured["test"]["subsets"].items() if own["leakage"]}
    most = max(inside, key=lambda name: inside[name])
    return f"{measured['leakage']:,} test images also lie in the training split, {inside[most]:,} of them in {most}."


def _rate(values: Mapping[str, float]) -> float:
    return values["balanced_acc"]


def _percent(values: Mapping[str, float]) -> str:
    return f"{100 * values['balanced_acc']:.1f} %"
