"""Detectors two by two on the same images: is a difference more than chance?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from nullscope.evaluation.paired import Difference
from nullscope.evaluation.pairs import compare_all
from nullscope.evaluation.scores import Scores
from nullscope.evaluation.seeds import Spread
from nullscope.report.layout import MARK, NO_NUMBER, Cell, Column, Table

KEYS = {"auroc": "AUROC", "mean_balanced": "Balanced accuracy"}
LEAST = 0.001  # smaller p-values are not told apart


def pairs_table(resamples: Mapping[str, Sequence[pa.Table]], read: Callable[[str], Scores]) -> Table | None:
    """Return one row per pair of detectors (`evaluation.pairs.compare_all`); None of a single detector."""
    tables = [table for own in resamples.values() for table in own]
    titles = {key: title for key, title in KEYS.items() if all(key in table.column_names for table in tables)}
    if not titles:
        return None
    pairs = compare_all(resamples, list(titles), read)
    if not pairs:
        return None
    columns = [Column("first", "Detector", "text"), Column("second", "less", "text")]
    for key, title in titles.items():
        columns += _difference_columns(key, title)
    columns += _difference_columns("auroc_pooled", "AUROC of all images at once (first seed)")
    group = "Images that only one calls right (first seed)"
    columns += [Column("only_first", "the first", "count", group), Column("only_second", "the second", "count", group)]
    columns.append(Column("mcnemar_p", "p", "text", group))
    rows: list[list[Cell]] = []
    for pair in pairs:
        tests = [cell for key in titles for cell in _cells(pair.means[key])]
        counts = [pair.right.only_first, pair.right.only_second, p_text(pair.right.p)]
        rows.append([pair.first, pair.second, *tests, *_cells(pair.auroc_pooled), *counts])
    note = (
        "Differences in points ± half their 95 % interval (paired bootstrap of the test images, means over subsets and seeds; "
        f"percentiles in the CSV); {MARK}: it excludes zero. p: two-sided, adjusted after Holm for all pairs of a column. First "
        "seed: DeLong's test of the AUROC of all test images at once, and McNemar's test of the answers. All of them speak of "
        "other images of these subsets, not of other seeds or generators: for seeds see the comparison."
    )
    return Table("pairs", "Detectors two by two", note, columns, rows)


def p_text(p: float) -> str:
    """Return a p-value with three decimals, or that it is below the last of them."""
    return f"< {LEAST}" if p < LEAST else f"{p:.3f}"


def _difference_columns(key: str, title: str) -> list[Column]:
    difference = Column(f"{key}_difference", "difference", "points", title, against=(0, 0))
    return [difference, Column(f"{key}_p", "p", "text", title)]


def _cells(found: Difference | None) -> list[Cell]:
    if found is None:
        return [None, NO_NUMBER]
    return [Spread(found.value, found.low, found.high, 1, "interval"), p_text(found.p)]
