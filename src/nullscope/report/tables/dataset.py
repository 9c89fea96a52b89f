"""The tables of the data set: its images, the subsets that are not as published, and the files that were refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nullscope.core.contracts import FAKE, SPLITS, ContractError
from nullscope.evaluation.scores import IndexGroup
from nullscope.report.layout import Cell, Column, Table, yes_no


def index_table(counts: Mapping[IndexGroup, int]) -> Table:
    """Return how many images the data set has of what."""
    columns = [Column(key, key.capitalize(), "text") for key in ("split", "subset", "generator", "kind", "seen")]
    trained = {generator for split, _, generator, label in counts if split == "train" and label == FAKE}
    rows: list[list[Cell]] = []
    for (split, subset, generator, label), count in sorted(counts.items(), key=lambda item: (SPLITS.index(item[0][0]), item[0])):
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


def read_refused(path: Path) -> list[dict[str, str]]:
    """Return the lines of ``data/rejects.csv``: the ``source`` of every refused file, and the ``reason``.

    Raises `ContractError` if the file is missing or has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `index`)") from None
    if not {"source", "reason"} <= set(reader.fieldnames or []):
        raise ContractError(f"{path}: expected the columns source and reason, found {reader.fieldnames}; run `dvc repro index`")
    return lines
