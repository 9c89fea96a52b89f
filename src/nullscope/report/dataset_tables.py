"""The tables of what the data set holds, lacks and had refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from nullscope.core.contracts import FAKE
from nullscope.evaluation.metrics import IndexGroup
from nullscope.report.layout import Cell, Column, Table, yes_no


def index_table(counts: Mapping[IndexGroup, int]) -> Table:
    """Return how many images the data set has of what."""
    columns = [Column(key, key.capitalize(), "text") for key in ("split", "subset", "generator", "kind", "seen")]
    trained = {generator for split, _, generator, label in counts if split == "train" and label == FAKE}
    rows: list[list[Cell]] = []
    for (split, subset, generator, label), count in sorted(counts.items(), key=lambda item: (item[0][0] != "train", item[0])):
        mark = yes_no(generator in trained if label == FAKE else None)
        rows.append([split, subset, generator, "fake" if label == FAKE else "real", mark, count])
    note = "Images of the index. Seen: fakes of that generator are in the training split."
    return Table("index", "Images", note, [*columns, Column("images", "Images", "count")], rows)


def unexpected_table(unexpected: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    """Return the subsets that the data set lacks, or has other counts of than published."""
    columns = [Column("split", "Split", "text"), Column("subset", "Subset", "text")]
    columns += [Column(kind, kind.capitalize(), "count", group="Here") for kind in ("real", "fake")]
    columns += [Column(f"{kind}_published", kind.capitalize(), "count", group="Published") for kind in ("real", "fake")]
    keys = [column.key for column in columns[2:]]
    rows: list[list[Cell]] = [
        [split, subset, *(counts.get(key) for key in keys)]
        for split, subsets in unexpected.items()
        for subset, counts in subsets.items()
    ]
    note = "Subsets that are missing here, or hold other numbers of images than published; n/a: published without a count."
    return Table("unexpected", "Not as published", note, columns, rows)


def refused_table(refused: Iterable[Mapping[str, str]]) -> Table:
    """Return how many files the index refused for which reason, with one of them as an example."""
    files: dict[str, list[str]] = {}
    for line in refused:
        # As `stages/index.py` prints them: the sizes in a reason would make every file a reason of its own.
        files.setdefault(re.sub(r"\d+", "N", line["reason"]), []).append(line["source"])
    rows: list[list[Cell]] = [[reason, len(files[reason]), min(files[reason])] for reason in sorted(files)]
    columns = [Column("reason", "Reason", "text"), Column("files", "Files", "count"), Column("example", "For example", "text")]
    return Table("refused", "Refused files", "Every one is listed in data/rejects.csv.", columns, rows)
