"""The results of a project that several tables and figures read: which runs there are, their metrics, models and histories.

What only one table or figure reads, it reads by itself.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from nullscope.core.config import read_params, section_of
from nullscope.core.contracts import ContractError
from nullscope.core.runs import detector_of, runs_of
from nullscope.evaluation import resampling
from nullscope.evaluation.history import History, read_history
from nullscope.evaluation.protocol import PROTOCOL
from nullscope.evaluation.releases import Releases, releases
from nullscope.evaluation.scores import IndexGroup, index_counts
from nullscope.evaluation.summary import Metrics
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_batches

DAGGER = "†"  # behind the name of weights that a detector's authors released, wherever the report names them
Models = dict[str, dict[str, Any]]  # detector -> the content of detector.json of its first seed


@dataclass(frozen=True)
class Project:
    """A project's folder, its parameters, and the runs that they name. Detectors are named as the report shows them."""

    root: Path
    params: dict[str, Any]  # all of params.yaml
    runs: dict[str, list[str]]  # detector -> the names of its runs, in the order of the parameters

    @property
    def all_runs(self) -> dict[str, str]:
        """The names of all runs, by what the report shows for them."""
        return {name + run.removeprefix(detector_of(run)): run for name, own in self.runs.items() for run in own}

    def section(self, name: str) -> Any:
        """Return the parameter or section at a dotted name."""
        return section_of(self.params, name)


def read_project(root: Path) -> Project:
    """Return the project under ``root``. Raises `ParamsError` where its parameters ask for no run (`runs_of`)."""
    params = read_params(root / "params.yaml")
    runs: dict[str, list[str]] = {}
    for run in runs_of(params):
        runs.setdefault(f"{run.detector} {DAGGER}" if run.is_official else run.detector, []).append(run.name)
    return Project(root, params, runs)


def is_official(name: str) -> bool:
    """Return whether a detector, as the report shows it, has weights that its authors released."""
    return name.endswith(DAGGER)


def read_summary(project: Project) -> dict[str, Metrics]:
    """Return ``metrics/<run>.json`` of every run.

    Raises `ContractError` if another version of the protocol computed one: no table mixes two.
    """
    return {shown: _read_metrics(project.root / f"metrics/{run}.json") for shown, run in project.all_runs.items()}


def read_models(project: Project) -> Models:
    """Return the facts of the first seed of every detector. Raises `ContractError` where they are missing or damaged."""
    found = {}
    for name, runs in project.runs.items():
        stage = "score_official" if is_official(name) else "train"
        found[name] = read_json(project.root / f"models/{runs[0]}/detector.json", stage)
    return found


def read_counts(project: Project) -> Counter[IndexGroup]:
    """Return how many images the index has of every (split, subset, generator, label)."""
    return index_counts(read_batches(project.root / "data/index.parquet", INDEX))


def read_releases(project: Project) -> Releases | None:
    """Return the test subsets by the days of their generators, where the index has them."""
    return releases(read_batches(project.root / "data/index.parquet", INDEX))


def read_histories(project: Project) -> dict[str, list[History]]:
    """Return the histories of every detector, one per seed; a detector with a run that has none (released weights) is left out.

    Raises `ValueError` on a file that is no history.
    """
    histories: dict[str, list[History]] = {}
    for name, runs in project.runs.items():
        found = [read_history(project.root / f"models/{run}/history.csv") for run in runs]
        if None not in found:
            histories[name] = found
    return histories


def read_resamples(project: Project) -> dict[str, list[pa.Table]]:
    """Return the bootstrap's resamples of every detector, one table per seed (`resampling.resample_table`)."""
    folder = project.root / "data/evaluated"
    return {name: [resampling.read_resamples(folder / f"{run}.parquet") for run in runs] for name, runs in project.runs.items()}


def read_json(path: Path, stage: str) -> dict[str, Any]:
    """Return the content of a JSON file that ``stage`` makes. Raises `ContractError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `{stage}`)") from None
    except ValueError as error:
        raise ContractError(f"{path} is not JSON ({error}); delete it and run `dvc repro` (stage `{stage}`)") from None


def _read_metrics(path: Path) -> Metrics:
    metrics = read_json(path, "evaluate")
    if metrics.get("protocol") != PROTOCOL:
        found = metrics.get("protocol", "none")
        raise ContractError(f"{path}: expected protocol {PROTOCOL}, found {found}; run `dvc repro evaluate` (docs/protocol.md)")
    return metrics
