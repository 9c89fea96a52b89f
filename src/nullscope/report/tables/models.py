"""Two fixed models on the same images: which is right more often, and which ranks all images better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from nullscope.evaluation.pairs import compare_models
from nullscope.evaluation.scores import Scores
from nullscope.report.layout import MARK, NO_NUMBER, Cell, Column, Table
from nullscope.report.tables.pairs import cell_of, p_text


def models_table(names: Sequence[str], read: Callable[[str], Scores]) -> Table | None:
    """Return one row per pair of models (`evaluation.pairs.compare_models`); None of a single one."""
    found = compare_models(names, read)
    if not found:
        return None
    area, group = "AUROC of all images at once", "Images that only one calls right"
    columns = [Column("first", "Model", "text"), Column("second", "less", "text")]
    columns += [Column("auroc_pooled_difference", "difference", "points", area, tested=True)]
    columns += [Column("auroc_pooled_p", "p", "text", area), Column("only_first", "the first", "count", group)]
    columns += [Column("only_second", "the second", "count", group), Column("mcnemar_p", "p", "text", group)]
    rows: list[list[Cell]] = []
    for pair, own in zip(combinations(names, 2), found, strict=True):
        pooled: list[Cell] = [None, NO_NUMBER]
        if own.auroc_pooled:
            pooled = [cell_of(own.auroc_pooled), p_text(own.auroc_pooled.p)]
        rows.append([*pair, *pooled, own.right.only_first, own.right.only_second, p_text(own.right.p)])
    note = (
        "In points ± half the 95 % interval (DeLong); p: DeLong's and McNemar's exact test, adjusted after Holm for all pairs "
        f"of a column; {MARK}: below 0.05. Of these models, not of the methods: another training is another model."
    )
    return Table("models", "Models two by two, all images at once", note, columns, rows)
