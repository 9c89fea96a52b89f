"""What the report is made of: every file it reads, checked, in the order of the parameters.

Scores are read one detector at a time and reduced to curves at once, so memory holds the scores of one detector.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray
from PIL import Image

from nullscope.config import ParamsError, read_params, section_of
from nullscope.contracts import CLEAN, FAKE, INDEX, REAL, SCORES, ContractError
from nullscope.data.tables import read_batches, read_table
from nullscope.metrics import IndexGroup, index_counts, seen_subsets
from nullscope.report.curves import Curves, Scores, curves

Metrics = dict[str, Any]  # the content of metrics/<detector>-<seed>.json


@dataclass(frozen=True)
class History:
    """The training of one run, T optimiser steps. A loss that a step did not have is NaN."""

    step_T: NDArray[np.int64]
    epoch_T: NDArray[np.int64]
    phases: list[str]  # T names
    losses: dict[str, NDArray[np.float64]]  # `loss` (what was minimised) and its parts, (T,) each


@dataclass(frozen=True)
class Example:
    """One test image beside its patch-selected mosaic, (H, W, 3) uint8 both."""

    image_id: str
    label: int
    original_HWC: NDArray[np.uint8]
    mosaic_HWC: NDArray[np.uint8]


@dataclass(frozen=True)
class Inputs:
    """Everything the report shows. Dictionaries are in the order of the parameter `run.detectors`."""

    summary: dict[str, Metrics]  # <detector>-<seed> -> metrics
    counts: Counter[IndexGroup]
    index: dict[str, Any]  # metrics/index.json: images, duplicates, leakage, refused, ...
    refused: list[dict[str, str]]  # the lines of data/rejects.csv
    curves: dict[str, Curves]
    histories: dict[str, list[History]]  # one per seed
    models: dict[str, dict[str, Any]]  # detector.json of the first seed
    examples: list[Example]  # a real and a fake


def read_inputs(root: Path) -> Inputs:
    """Read all of it under the project's ``root``. Raises `ValueError` naming the first file that is missing or wrong."""
    names, seeds = read_run_params(root / "params.yaml")
    counts = index_counts(read_batches(root / "data/index.parquet", INDEX))
    seen = seen_subsets(counts)
    runs = {name: [f"{name}-{seed}" for seed in seeds] for name in names}
    return Inputs(
        summary={run: _read_json(root / f"metrics/{run}.json", "evaluate") for name in names for run in runs[name]},
        counts=counts,
        index=_read_json(root / "metrics/index.json", "index"),
        refused=_read_refused(root / "data/rejects.csv"),
        curves={name: curves([_read_scores(root / f"scores/{run}.parquet", seen) for run in runs[name]]) for name in names},
        histories={name: [_read_history(root / f"models/{run}/history.csv") for run in runs[name]] for name in names},
        models={name: _read_json(root / f"models/{runs[name][0]}/detector.json", "train") for name in names},
        examples=_read_examples(root / "data/shards"),
    )


def read_run_params(path: Path) -> tuple[list[str], list[int]]:
    """Return `run.detectors` and `run.seeds`. Raises `ParamsError` unless each is a list of at least one."""
    values = read_params(path)
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


def _read_examples(shards: Path) -> list[Example]:
    """Return the first real and the first fake of the test shards, each beside its mosaic."""
    mosaics: dict[int, tuple[str, bytes]] = {}
    for image_id, label, data in _samples(shards / "patches/test"):
        mosaics.setdefault(label, (image_id, data))
        if {REAL, FAKE} <= set(mosaics):
            break
    wanted = {image_id: (label, data) for label, (image_id, data) in sorted(mosaics.items())}
    found = {}
    for image_id, _, data in _samples(shards / "images/test"):
        if image_id in wanted:
            found[image_id] = data
        if len(found) == len(wanted):
            return [Example(key, label, _decode(found[key]), _decode(mosaic)) for key, (label, mosaic) in wanted.items()]
    raise ContractError(f"{shards}: images/test lacks {sorted(set(wanted) - set(found))} of patches/test; run `dvc repro shard`")


def _samples(directory: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield (image_id, label, content) of every sample, in order.

    `nullscope.data.shards` reads them through webdataset, which imports torch; two samples are not worth those seconds.
    """
    tars = sorted(directory.glob("*.tar"))
    if not tars:
        raise ContractError(f"{directory}: expected tars, found none; run `dvc repro` to make them (stage `shard`)")
    for path in tars:
        parts: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                image_id, suffix = member.name.split(".", 1)
                parts.setdefault(image_id, {})["json" if suffix == "json" else "content"] = tar.extractfile(member).read()
                if len(parts[image_id]) == 2:
                    sample = parts.pop(image_id)
                    yield image_id, json.loads(sample["json"])["label"], sample["content"]


def _decode(data: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
