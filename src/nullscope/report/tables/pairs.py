"""Detectors two by two on the same images: is a difference more than chance?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nullscope.evaluation.paired import Difference, Tables
from nullscope.evaluation.pairs import compare_all
from nullscope.evaluation.seeds import ENOUGH, Spread
from nullscope.report.layout import MARK, NO_NUMBER, Cell, Column, Table

KEYS = {"auroc": "AUROC", "mean_balanced": "Balanced accuracy"}
LEAST = 0.001  # smaller p-values are not told apart
FEW_SEEDS = (
    f"Fewer than {ENOUGH} seeds: nothing is tested, for another training could turn any difference around; the intervals are of "
    "other images alone."
)


def tested_note(family: str, tested: Iterable[bool]) -> str:
    """Return what the star of a table means, whose p-values are adjusted for ``family``, and why some differences have none."""
    tested = list(tested)
    said = [f"{MARK}: p below 0.05, adjusted for {family}."] if any(tested) else []
    return " ".join(said + ([] if all(tested) else [FEW_SEEDS]))


def pairs_table(tables: Tables, fixed: frozenset[str]) -> Table | None:
    """Return one row per pair of detectors (`evaluation.pairs.compare_all`); None of a single detector.

    ``fixed``: the detectors that are one model each, as in `paired.compare`.
    """
    every = [table for own in tables.values() for table in own]
    titles = {key: title for key, title in KEYS.items() if all(key in table.column_names for table in every)}
    pairs = compare_all(tables, list(titles), fixed=fixed)
    if not pairs or not titles:
        return None
    columns = [Column("first", "Detector", "text"), Column("second", "less", "text")]
    for key, title in titles.items():
        columns += [
            Column(f"{key}_difference", "difference", "points", title, tested=True),
            Column(f"{key}_p", "p", "text", title),
        ]
    columns.append(Column("ahead", "Generators on which the first has the higher AUROC", "text"))
    rows: list[list[Cell]] = []
    for pair in pairs:
        tests = [cell for key in titles for cell in (cell_of(pair.means[key]), p_text(pair.means[key].p))]
        rows.append([pair.first, pair.second, *tests, "{} of {}".format(*pair.ahead)])
    note = pairs_note([own for pair in pairs for own in pair.means.values()], models=set(tables) <= fixed)
    return Table("pairs", "Detectors two by two", note, columns, rows)


def pairs_note(found: Sequence[Difference], *, models: bool = False) -> str:
    """Return how to read differences with their p-values; ``models``: between models that are not trained again."""
    tested = [own.p is not None for own in found]
    note = "Differences of means over subsets, in points ± half their 95 % interval"
    note += ". " if models else "; seeds and images are in one error. "
    subject = "these models on" if models else "other trainings and of"
    if any(tested):
        note += (
            f"p: two-sided, adjusted for all pairs of a column (max-T); {MARK}: below 0.05. It speaks of {subject} other images "
            "of these subsets, not of other generators. "
        )
    return note + ("" if all(tested) else FEW_SEEDS)


def p_text(p: float | None) -> str:
    """Return a p-value with three decimals, or that it is below the last of them."""
    if p is None:
        return NO_NUMBER
    return f"< {LEAST}" if p < LEAST else f"{p:.3f}"


def cell_of(found: Difference) -> Spread:
    """Return a difference as a cell of a table."""
    return Spread(found.value, found.low, found.high, 1, "interval", found.p)
