"""Where the numbers come from, and their licences: models, data, protocol.

The page names no commit, because the same results must be the same bytes whenever they are computed. It names the md5 sums that
dvc.lock records, by which git finds the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nullscope.core.contracts import ContractError
from nullscope.core.runs import detector_of
from nullscope.locked import md5_of
from nullscope.records.licences import licences
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.project import DAGGER, Project
from nullscope.report.tables.papers import OURS

OFFICIAL, RETRAINED = "official", "retrained"  # weights
MEANING = f"{DAGGER}: weights that its authors released, not trained here."


@dataclass(frozen=True)
class Provenance:
    """The files that the numbers were computed from."""

    dataset: str  # its name
    files: dict[str, str]  # path -> md5, as dvc.lock has it
    scores: dict[str, str]  # run, as the report shows it -> md5 of its scores
    prepare: list[str]  # the parameter `shard.prepare`


def read_provenance(project: Project) -> Provenance:
    """Read and hash the files of a project. Raises `ContractError` if one is missing."""
    files = {name: _md5(project.root / name) for name in ("data/index.parquet", "data/captions.parquet")}
    scores = {shown: _md5(project.root / f"scores/{run}.parquet") for shown, run in project.all_runs.items()}
    return Provenance(project.section("dataset.name"), files, scores, project.section("shard.prepare"))


def origins_table(summary: Mapping[str, Mapping[str, Any]], models: Mapping[str, Mapping[str, Any]], found: Provenance) -> Table:
    """Return one row per run: its method, whose weights, what it was trained on, the protocol, and the hash of its scores."""
    keys = {"method": "Method", "weights": "Weights", "dataset": "Trained on", "prepare": "Prepared by", "protocol": "Protocol"}
    columns = [detector_column(), Column("seed", "Seed", "text"), *(Column(key, title, "text") for key, title in keys.items())]
    columns.append(Column("scores_md5", "Scores (md5)", "text"))
    rows: list[list[Cell]] = []
    for run, metrics in summary.items():
        name = detector_of(run)
        model, seed = models[name], run.removeprefix(name).removeprefix("-")
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


def marked(table: Table) -> Table:
    """Return a table that names official weights with a column that says whose weights each row has, and a note of the mark."""
    words = [column.full_title for column in table.columns] + [
        cell for row in table.rows for cell in row if isinstance(cell, str)
    ]
    if not any(DAGGER in word for word in words):
        return table
    table = replace(table, note=f"{table.note} {MEANING}")
    keys = [column.key for column in table.columns]
    if keys[0] != "detector" or "weights" in keys or not any(DAGGER in row[0] for row in table.rows):
        return table
    columns = [table.columns[0], Column("weights", "Weights", "text"), *table.columns[1:]]
    return replace(table, columns=columns, rows=[[row[0], _whose(row[0], table), *row[1:]] for row in table.rows])


def _whose(name: str, table: Table) -> str:
    """Return whose weights a row of a table has; nothing for a number that a paper prints."""
    if DAGGER in name:
        return OFFICIAL
    return "" if table.name.startswith("paper_") and not name.endswith(OURS) else RETRAINED


def _md5(path: Path) -> str:
    try:
        return md5_of(path)
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it") from None
