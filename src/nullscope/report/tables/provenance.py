"""Where the numbers come from, and their licences: models, data, protocol.

The page names no commit, because the same results must be the same bytes whenever they are computed. It names the md5 sums that
dvc.lock records, by which git finds the commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nullscope.core.contracts import ContractError
from nullscope.records.licences import licences
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.project import Project
from nullscope.report.tables.papers import OURS

OFFICIAL = "official"  # weights that a detector's authors released
DAGGER = "†"  # behind the name of a detector with such weights
NAMING = ("detector", "run", "first", "second", "features")  # the columns in which detectors are named
IN_HEADINGS = ("comparison", "shortcut", "parameters")  # the tables with detectors' names in their headings


@dataclass(frozen=True)
class Provenance:
    """The files that the numbers were computed from."""

    dataset: str  # its name
    files: dict[str, str]  # path -> md5, as dvc.lock has it
    scores: dict[str, str]  # run -> md5 of its scores
    prepare: list[str]  # the parameter `shard.prepare`


def read_provenance(project: Project) -> Provenance:
    """Read and hash the files of a project. Raises `ContractError` if one is missing."""
    files = {name: _md5(project.root / name) for name in ("data/index.parquet", "data/captions.parquet")}
    scores = {run: _md5(project.root / f"scores/{run}.parquet") for run in project.all_runs}
    return Provenance(project.section("dataset.name"), files, scores, project.section("shard.prepare"))


def origins_table(summary: Mapping[str, Mapping[str, Any]], models: Mapping[str, Mapping[str, Any]], found: Provenance) -> Table:
    """Return one row per run: its method, whose weights, what it was trained on, the protocol, and the hash of its scores."""
    keys = {"method": "Method", "weights": "Weights", "dataset": "Trained on", "prepare": "Prepared by", "protocol": "Protocol"}
    columns = [detector_column(), Column("seed", "Seed", "text"), *(Column(key, title, "text") for key, title in keys.items())]
    columns.append(Column("scores_md5", "Scores (md5)", "text"))
    rows: list[list[Cell]] = []
    for run, metrics in summary.items():
        name, _, seed = run.rpartition("-")
        model = models[name]
        facts = [model["params"].get("method", name), model.get("weights", ""), model.get("dataset", "")]
        prepared = ", ".join(model.get("prepare", [])) or "as they are"
        rows.append([name, seed, *facts, prepared, str(metrics["protocol"]), found.scores[run]])
    note = (
        "Scores of one md5 are the same numbers, wherever they were computed. `git log --reverse --format=%H -S MD5 -- dvc.lock` "
        "finds the commit that recorded them."
    )
    return Table("origins", "Where the numbers come from", note, columns, rows)


def data_table(found: Provenance) -> Table:
    """Return what the numbers were computed on, with its hashes."""
    columns = [Column("file", "File", "text"), Column("md5", "md5", "text")]
    rows: list[list[Cell]] = [[name, digest] for name, digest in found.files.items()]
    prepared = f"Every image was prepared: {', '.join(found.prepare)}." if found.prepare else "Images as they are."
    return Table("data_hashes", "Data", f"Data set {found.dataset}. {prepared}", columns, rows)


def licence_table(dataset: str, methods: Iterable[str]) -> Table:
    """Return the licences of the detectors of a run, of their data set and of all encoders; `records.licences` has all."""
    names = {*methods, dataset}
    rows: list[list[Cell]] = [
        [row.name, row.part, row.licence, row.commercial, row.source]
        for row in licences()
        if row.kind == "encoder" or row.name in names
    ]
    titles = ("Of", "Part", "Licence", "Commercial use", "Source")
    columns = [Column(title.lower().replace(" ", "_"), title, "text") for title in titles]
    note = "No legal advice. A detector has the terms of its code, of its encoder and of the data it was trained on."
    return Table("licences", "Licences", note, columns, rows)


def official(models: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the detectors whose weights were not trained here: every table marks them."""
    return {name for name, model in models.items() if model.get("weights") == OFFICIAL}


def marked(table: Table, names: Collection[str]) -> Table:
    """Return a table with a mark wherever it names one of the detectors ``names``; its note then says what that means."""
    if not names:
        return table
    any_of = "|".join(map(re.escape, sorted(names)))
    named = re.compile(rf"(.* (to|of) |.*\()?({any_of})(-\d+|\)| {re.escape(OURS)})?")  # alone, or as tables speak of it

    def mark(words: Cell) -> Cell:
        return f"{words} {DAGGER}" if isinstance(words, str) and named.fullmatch(words) else words

    columns = table.columns
    if table.name in IN_HEADINGS:
        columns = [replace(column, title=mark(column.title), group=mark(column.group)) for column in columns]
    naming = [column.key in NAMING for column in columns]
    rows = [
        [mark(cell) if names_detectors else cell for cell, names_detectors in zip(row, naming, strict=True)] for row in table.rows
    ]
    if (columns, rows) == (table.columns, table.rows):
        return table
    note = f"{table.note} {DAGGER}: weights its authors released, not trained here."
    return replace(table, columns=columns, rows=rows, note=note)


def _md5(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it") from None
