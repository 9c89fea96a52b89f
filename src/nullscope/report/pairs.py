"""Detectors two by two on the same images: is a difference more than chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nullscope.evaluation.paired import Difference, difference, holm, mcnemar
from nullscope.report.layout import MARK, Cell, Column, Spread, Table

KEYS = {"auroc": "AUROC", "mean_balanced": "Balanced accuracy"}
BELOW = 0.001  # of a p-value: smaller ones say the same


def pairs_table(resamples: Mapping[str, Sequence[pa.Table]], answers: Mapping[str, NDArray[np.bool_]]) -> Table | None:
    """Return one row per pair of detectors; None of a single detector.

    ``resamples``: the tables of `resampling` of every seed; ``answers``: whether the first seed is right on each image.
    """
    pairs = list(combinations(resamples, 2))
    titles = {
        key: title for key, title in KEYS.items() if all(key in table.column_names for own in resamples.values() for table in own)
    }
    if not pairs or not titles:
        return None
    found = {key: [difference(resamples[a], resamples[b], key) for a, b in pairs] for key in titles}
    exact = [mcnemar(answers[a], answers[b]) for a, b in pairs]
    adjusted = {key: holm([each.p for each in own]) for key, own in found.items()}
    adjusted_exact = holm([each.p for each in exact])
    columns = [Column("first", "Detector", "text"), Column("second", "less", "text")]
    for key, title in titles.items():
        columns += [
            Column(f"{key}_difference", "difference", "points", title, against=(0, 0)),
            Column(f"{key}_p", "p", "text", title),
        ]
    group = "Images that only one calls right (first seed)"
    columns += [Column("only_first", "the first", "count", group), Column("only_second", "the second", "count", group)]
    columns.append(Column("mcnemar_p", "p", "text", group))
    rows: list[list[Cell]] = []
    for at, (first, second) in enumerate(pairs):
        tests = [cell for key in titles for cell in (_spread(found[key][at]), p_text(adjusted[key][at]))]
        rows.append([first, second, *tests, exact[at].only_first, exact[at].only_second, p_text(adjusted_exact[at])])
    note = (
        "Differences in points ± half their 95 % interval (paired bootstrap of the test images, means over subsets and seeds; "
        f"percentiles in the CSV); {MARK}: it excludes zero. p: two-sided, adjusted after Holm for all pairs of a column; on the "
        "right, McNemar's test. They speak of other images of these subsets, not of other seeds or generators: for seeds see the "
        "comparison."
    )
    return Table("pairs", "Detectors two by two", note, columns, rows)


def p_text(p: float) -> str:
    """Return a p-value with three decimals, or that it is below the last of them."""
    return f"< {BELOW}" if p < BELOW else f"{p:.3f}"


def _spread(found: Difference) -> Spread:
    return Spread(found.value, found.low, found.high, 1, "interval")
