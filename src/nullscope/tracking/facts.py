"""What a run in MLflow says about its model: names, parameters, metrics and tags, in a form that MLflow accepts."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nullscope.core.config import leaves
from nullscope.core.runs import Run
from nullscope.repository import git

MODEL = "nullscope.model"  # hash of the model folder: what a run is found by
TRAINING = "nullscope.training"  # hash of what determines a training: what an interrupted run is found by
CLONE = "nullscope.clone"  # of the project in which a training runs: another one's is not continued
PUBLISHED = "nullscope.metrics"  # hash of the metrics and the report that the run shows; written last
CURRENT = "nullscope.current"  # whether this is the model in the project that published last
CURVE = "train/"  # before the name of what was logged per step
SYSTEM = "system/"  # before the name of what the training cost its machine; MLflow shows it on a page of its own
COMPARED = ("acc", "ap", "auroc", "r_acc", "f_acc")  # what is shown of every subset and degradation

FROZEN = ("clip", "blip", "convnext")  # the frozen encoders in a model folder: gigabytes, and the same in every run
PACKAGES = ("nullscope", "torch", "peft", "open_clip_torch", "transformers")
PARAM_LIMIT, KEY_LIMIT = 6000, 250  # characters, MLflow's


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Return nested parameters as ``{"lora.rank": "6"}``, within MLflow's limits of length."""
    return {_accepted(key)[:KEY_LIMIT]: _as_text(value)[:PARAM_LIMIT] for key, value in leaves(params)}


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a metrics file by name: ``acc``, ``f_acc/<subset>``, ``acc_degraded/<degradation>``.

    MLflow draws a section for every name before a slash. Of subsets and degradations only the metrics of `COMPARED` are shown,
    and none of a subset under a degradation: a run then has about a hundred metrics, not thousands. The file itself is among the
    artefacts. Where two subsets get the same name without the characters that MLflow refuses, a part of a hash follows.
    """
    named = [(key, "", value) for key, value in metrics.items() if not isinstance(value, Mapping)]
    for section, ending in (("subsets", ""), ("degradations", "_degraded")):
        for part, values in sorted(metrics.get(section, {}).items()):
            named += [(key + ending, part, value) for key, value in values.items() if key in COMPARED]
    flat: dict[str, float] = {}
    for key, part, value in named:
        name = f"{_accepted(key)}/{_accepted(part).replace('/', '_')}" if part else _accepted(key)
        if name in flat:
            name = f"{name}-{hashlib.sha256(part.encode()).hexdigest()[:6]}"
        flat[name] = float(value)
    return flat


def training_key(detector: str, seed: int, params: Mapping[str, Any], inputs: str) -> str:
    """Return the hash of what determines a training; ``inputs`` stands for its data."""
    text = json.dumps([detector, seed, params, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def model_files(model: Path) -> list[Path]:
    """Return the files of a model folder in the order of their names, the frozen tower left out."""
    files = (file for file in model.rglob("*") if file.is_file() and file.relative_to(model).parts[0] not in FROZEN)
    return sorted(files)


def origin_tags(checkout: Path, run: Run) -> dict[str, str]:
    """Return whose weights a run has, and its code, stage and experiment; ``checkout`` is the one whose code runs."""
    tags = {"nullscope.detector": run.detector, **_git_tags(checkout), "mlflow.source.type": "LOCAL"}
    if run.is_official:
        tags |= {"nullscope.weights": "official", "mlflow.source.name": "nullscope import-weights"}
    else:
        tags |= {"nullscope.weights": "retrained", "nullscope.seed": str(run.seed)}
        tags |= {"dvc.stage": f"train@{run.name}", "mlflow.source.name": "stages/train.py"}
    exported = {"dvc.exp.name": "DVC_EXP_NAME", "dvc.exp.baseline_rev": "DVC_EXP_BASELINE_REV"}  # by `dvc exp run`
    return tags | {tag: os.environ[variable] for tag, variable in exported.items() if os.environ.get(variable)}


def machine_tags() -> dict[str, str]:
    """Return the versions and the hardware of this process: of the training, if that is what it does."""
    tags = {"hardware.cpus": str(len(os.sched_getaffinity(0)))}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")  # whoever trains has imported it; whoever publishes need not wait for it
    if torch is not None and torch.cuda.is_available():
        tags["hardware.gpu"] = torch.cuda.get_device_name()
    return tags


def _git_tags(checkout: Path) -> dict[str, str]:
    commit = _git(checkout, "rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = "true" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else "false"
    return {"git.commit": commit, "git.dirty": dirty, "mlflow.source.git.commit": commit}


def _git(checkout: Path, *arguments: str) -> str:
    return (git(checkout, *arguments) or b"").decode(errors="replace").strip()  # nothing: the run goes without a commit


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _accepted(name: str) -> str:
    """Return ``name`` without what MLflow refuses: other characters, and parts that read as a path."""
    parts = (re.sub(r"[^\w.\- ]", "_", part) for part in name.split("/"))
    return "/".join(re.sub(r"^\.*$", "_", part) for part in parts)
