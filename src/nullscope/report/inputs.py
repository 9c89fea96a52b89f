"""What the report is made of: every file it reads, checked, in the order of the parameters.

Scores are read one detector at a time and reduced to curves at once, so memory holds the scores of one detector.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from nullscope.core.config import ParamsError, read_params, section_of
from nullscope.core.contracts import CLEAN, FAKE, INDEX, SCORES, ContractError
from nullscope.evaluation.metrics import PROTOCOL, IndexGroup, index_counts, seen_subsets
from nullscope.evaluation.resampling import resample_schema
from nullscope.report.audit import Audit
from nullscope.report.curves import Curves, Scores, curves
from nullscope.report.examples import Example, read_examples
from nullscope.report.insight import Insight, read_insight
from nullscope.report.provenance import Provenance, read_provenance
from nullscope.tables.parquet import read_batches, read_schema, read_table

Metrics = dict[str, Any]  # the content of metrics/<detector>-<seed>.json


@dataclass(frozen=True)
class History:
    """The training of one run, T optimiser steps. A loss that a step did not have is NaN."""

    step_T: NDArray[np.int64]
    epoch_T: NDArray[np.int64]
    phases: list[str]  # T names
    losses: dict[str, NDArray[np.float64]]  # `loss` (what was minimised) and its parts, (T,) each


@dataclass(frozen=True)
class Inputs:
    """Everything the report shows. Dictionaries are in the order of the parameter `run.detectors`."""

    summary: dict[str, Metrics]  # <detector>-<seed> -> metrics
    counts: Counter[IndexGroup]
    index: dict[str, Any]  # metrics/index.json: images, duplicates, leakage, refused, ...
    refused: list[dict[str, str]]  # the lines of data/rejects.csv
    audit: Audit  # metrics/audit.json: what the files give away
    curves: dict[str, Curves]
    resamples: dict[str, list[pa.Table]]  # of the means over subsets, one table per seed (`nullscope.evaluation.resampling`)
    answers: dict[str, NDArray[np.bool_]]  # whether the first seed is right, per clean test image in the order of the scores
    histories: dict[str, list[History]]  # one per seed
    models: dict[str, dict[str, Any]]  # detector.json of the first seed
    examples: list[Example]  # a real and a fake
    insight: Insight
    provenance: Provenance


def read_inputs(root: Path) -> Inputs:
    """Read all of it under the project's ``root``. Raises `ValueError` naming the first file that is missing or wrong."""
    params = read_params(root / "params.yaml")
    names, seeds = _run_params(params, root / "params.yaml")
    counts = index_counts(read_batches(root / "data/index.parquet", INDEX))
    seen = seen_subsets(counts)
    runs = {name: [f"{name}-{seed}" for seed in seeds] for name in names}
    models = {name: _read_json(root / f"models/{runs[name][0]}/detector.json", "train") for name in names}
    drawn, answers = {}, {}
    for name in names:
        scores = [_read_scores(root / f"scores/{run}.parquet", seen) for run in runs[name]]
        drawn[name], answers[name] = curves(scores), scores[0].is_right_N
    dataset, prepare = section_of(params, "dataset.name"), section_of(params, "shard.prepare")
    return Inputs(
        summary={run: _read_metrics(root / f"metrics/{run}.json") for name in names for run in runs[name]},
        counts=counts,
        index=_read_json(root / "metrics/index.json", "index"),
        refused=_read_refused(root / "data/rejects.csv"),
        audit=_read_json(root / "metrics/audit.json", "audit"),
        curves=drawn,
        resamples={name: [_read_resamples(root / f"data/evaluated/{run}.parquet") for run in runs[name]] for name in names},
        answers=answers,
        histories={name: [_read_history(root / f"models/{run}/history.csv") for run in runs[name]] for name in names},
        models=models,
        examples=read_examples(root / "data/shards"),
        insight=read_insight(root, params, runs, models, seen),
        provenance=read_provenance(root, dataset, prepare, [run for own in runs.values() for run in own]),
    )


def _run_params(values: dict[str, Any], path: Path) -> tuple[list[str], list[int]]:
    """Return `run.detectors` and `run.seeds`. Raises `ParamsError` unless each is a list of at least one."""
    lists = []
    for key, kind in (("run.detectors", str), ("run.seeds", int)):
        found = section_of(values, key, path)
        if not isinstance(found, list) or not found or not all(isinstance(entry, kind) for entry in found):
            raise ParamsError(f"{path}: {key}: expected a list of {kind.__name__} with at least one entry, found {found!r}")
        lists.append(found)
    return lists[0], lists[1]


def _read_json(path: Path, stage: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `{stage}`)") from None
    except ValueError as error:
        raise ContractError(f"{path} is not JSON ({error}); delete it and run `dvc repro` (stage `{stage}`)") from None


def _read_metrics(path: Path) -> Metrics:
    """Read the metrics of a run. Raises `ContractError` if another version of the protocol computed them: no table mixes two."""
    metrics = _read_json(path, "evaluate")
    if metrics.get("protocol") != PROTOCOL:
        found = metrics.get("protocol", "none")
        raise ContractError(f"{path}: expected protocol {PROTOCOL}, found {found}; run `dvc repro evaluate` (docs/protocol.md)")
    return metrics


def _read_resamples(path: Path) -> pa.Table:
    return read_table(path, resample_schema(read_schema(path).names[1:]))


def _read_scores(path: Path, seen: frozenset[str]) -> Scores:
    table = read_table(path, SCORES, columns=["subset", "label", "degradation", "logit"])
    table = table.filter(pc.equal(table["degradation"], CLEAN))
    seen_N = pc.is_in(table["subset"], pa.array(sorted(seen), pa.string()))
    return Scores(table["label"].to_numpy() == FAKE, seen_N.to_numpy(), table["logit"].to_numpy())


def _read_history(path: Path) -> History:
    kinds = {"step": pa.int64(), "epoch": pa.int64(), "phase": pa.string()}
    try:
        table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=kinds))
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `train`)") from None
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path} is not a training history ({error}); delete it and run `dvc repro`") from None
    if table.column_names[:4] != [*kinds, "loss"] or not table.num_rows:
        raise ContractError(f"{path}: expected rows of step,epoch,phase,loss,..., found {table.num_rows} of {table.column_names}")
    losses = {name: table[name].cast(pa.float64()).to_numpy() for name in table.column_names[3:]}
    return History(table["step"].to_numpy(), table["epoch"].to_numpy(), table["phase"].to_pylist(), losses)


def _read_refused(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `index`)") from None
    if not {"source", "reason"} <= set(reader.fieldnames or []):
        raise ContractError(f"{path}: expected the columns source and reason, found {reader.fieldnames}; run `dvc repro index`")
    return lines
