"""The models of a project as MLflow's own: logged with what serves them, registered, and one of them the champion.

A logged model holds its folder, the code that a prediction needs and pinned requirements: `mlflow models serve` and `mlflow
models predict` answer with the scores of `nullscope predict`. Idempotent, as `publishing` is, and run after it.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nullscope import detectors
from nullscope.core import imports, runs
from nullscope.core.config import read_params, section_of
from nullscope.core.files import content_sha256
from nullscope.evaluation.history import read_history
from nullscope.evaluation.pairs import champion
from nullscope.evaluation.resampling import read_resamples
from nullscope.evaluation.summary import BEST_BY
from nullscope.tracking.address import switched_on, tracking_uri
from nullscope.tracking.facts import CURRENT, MODEL, model_files
from nullscope.tracking.store import Store, explained, open_store, patience
from nullscope.tracking.turn import turn

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

LOGGED = "nullscope.mlflow_model"  # tag of a run: the identifier of its model in MLflow
CHAMPION, CHOSEN_BY = "champion", "nullscope.chosen_by"  # alias of a version, and its tag: the number that chose it
NAME = "detector"  # of a logged model, within its run
# Bytes of a model folder that every run logs. A frozen ViT-L/14 is larger and the same in every run: only the champion has it.
LIMIT = 256 * 2**20
SERVED, FACTS = "nullscope.served", "detector.json"
NEEDED = ("torch", "open_clip_torch", "peft", "transformers", "safetensors", "numpy", "scipy", "pandas", "pillow", "pyarrow")


@dataclass(frozen=True)
class Registered:
    """What the registry holds of a project."""

    name: str  # of the registered model
    versions: dict[str, str]  # run -> its version
    champion: str | None  # the run that has the alias; None: no detector is told apart from all others
    too_large: list[str]  # runs whose model is not in MLflow


def register(root: Path) -> Registered | None:
    """Log and register the models of the project at ``root`` whose runs are published; None where tracking is off.

    The registered model is called ``nullscope-<data set>``; its versions are the models, and the alias `CHAMPION` belongs to the
    one that `evaluation.pairs.champion` names, of its seeds the one with the best average precision on the validation split.
    Raises `TrackingError` if the store cannot be used.
    """
    root = Path(root).resolve()
    if not switched_on():
        return None
    params = read_params(root / "params.yaml")
    wanted, store, name = runs.runs_of(params), open_store(root), f"nullscope-{section_of(params, 'dataset.name')}"
    with explained(tracking_uri(root)), patience(retries=3, timeout_s=60), turn(store):
        found = _published(store, root, wanted)
        best = _champion(root, wanted, found)
        versions: dict[str, str] = {}
        too_large = []
        for run_name, run in sorted(found.items()):
            folder = root / "models" / run_name
            if run_name != best and LOGGED not in run.data.tags and size_of(folder) > LIMIT:
                too_large.append(run_name)
                continue
            model_id = run.data.tags.get(LOGGED) or log_model(store, run, folder)
            versions[run_name] = _version(store, name, run, model_id)
        if versions:
            _crown(store, name, versions.get(best or ""))
    return Registered(name, versions, best, too_large)


def _published(store: Store, root: Path, wanted: Sequence[runs.Run]) -> dict[str, Run]:
    """Return the runs of the models that lie here, by name: another project may have published other models under these names."""
    current = store.client.search_runs([store.experiment_id], f"tags.`{CURRENT}` = 'true'")
    folders = {run.name: root / "models" / run.name for run in wanted}
    digests = {name: content_sha256(model_files(path), path) for name, path in folders.items() if (path / FACTS).is_file()}
    return {run.info.run_name: run for run in current if digests.get(run.info.run_name) == run.data.tags.get(MODEL, "")}


def _champion(root: Path, wanted: Sequence[runs.Run], found: Mapping[str, Any]) -> str | None:
    """Return the run of the champion; None where a detector's evaluation is missing."""
    trained: dict[str, list[str]] = {}
    for run in wanted:
        if not run.is_official:
            trained.setdefault(run.detector, []).append(run.name)
    paths = {name: [root / f"data/evaluated/{run}.parquet" for run in own] for name, own in trained.items()}
    if not all(path.is_file() for own in paths.values() for path in own):
        return None
    best = champion({name: [read_resamples(path) for path in own] for name, own in paths.items()}, BEST_BY)
    candidates = [run for run in trained.get(best or "", []) if run in found]
    return max(candidates, key=lambda run: _validated(root / "models" / run), default=None)


def _validated(folder: Path) -> float:
    """Return the last average precision on the validation split, 0 where there is none."""
    history = read_history(folder / "history.csv")
    _, values = history.points("val_ap") if history else ((), ())
    return float(values[-1]) if len(values) else 0.0


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a model folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def log_model(store: Store, run: Run, folder: Path) -> str:
    """Log the model in ``folder`` as a pyfunc of ``run`` and return its identifier; what a killed attempt left is deleted."""
    for left in _logged(store, run):
        store.client.delete_logged_model(left.model_id)
    with _quiet(store), tempfile.TemporaryDirectory() as scratch:
        import mlflow
        import pandas as pd
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, Schema

        numbers = [ColSpec("double", name, required=False) for name in ("logit", "score", "probability")]
        words = [ColSpec("string", name, required=False) for name in ("answer", "refused")]
        outputs = [*numbers, ColSpec("boolean", "fake", required=False), *words]
        code = _code(Path(scratch), folder)
        # A copy, of what links lead to: MLflow refuses a link out of the folder, and DVC may have made nothing else.
        model = shutil.copytree(folder, Path(scratch) / "model" / folder.name)
        info = Model.log(
            artifact_path=None,
            name=NAME,
            flavor=mlflow.pyfunc,
            run_id=run.info.run_id,
            python_model=str(code / "nullscope" / "served.py"),
            artifacts={"model": str(model)},
            code_paths=[str(code / "nullscope")],
            signature=ModelSignature(Schema([ColSpec("binary", "image")]), Schema(outputs)),
            input_example=pd.DataFrame({"image": [_example()]}),
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in NEEDED],
        )
    store.client.set_tag(run.info.run_id, LOGGED, info.model_id)
    return info.model_id


def _version(store: Store, name: str, run: Run, model_id: str) -> str:
    """Return the version of the registered model that is the model of ``run``, registered if it is not yet."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = [own for own in _versions(store, name) if own.run_id == run.info.run_id]
    if found:
        return found[0].version
    tags = {key: value for key, value in run.data.tags.items() if key.startswith(("nullscope.detector", "nullscope.seed"))}
    tags |= {"nullscope.weights": run.data.tags.get("nullscope.weights", "")}
    return store.client.create_model_version(name, f"models:/{model_id}", run.info.run_id, tags, model_id=model_id).version


def _crown(store: Store, name: str, version: str | None) -> None:
    """Give the alias to a version, or take it from all."""
    holder = store.client.get_registered_model(name).aliases.get(CHAMPION)  # a search for versions leaves the aliases out
    if version is not None and holder != version:
        store.client.set_model_version_tag(name, version, CHOSEN_BY, BEST_BY)
        store.client.set_registered_model_alias(name, CHAMPION, version)
    elif version is None and holder is not None:
        store.client.delete_registered_model_alias(name, CHAMPION)


def _versions(store: Store, name: str) -> Sequence[ModelVersion]:
    return store.client.search_model_versions(f"name = '{name}'")


def _logged(store: Store, run: Run) -> Sequence[Any]:
    return store.client.search_logged_models([store.experiment_id], f"source_run_id = '{run.info.run_id}'")


@contextmanager
def _quiet(store: Store) -> Iterator[None]:
    """Let MLflow's global functions work on ``store``, without their bars, notices and warnings about themselves."""
    import mlflow

    # By the environment: `mlflow.set_tracking_uri` escapes a blank or a percent sign in a database's path, and opens another.
    ours = {"MLFLOW_TRACKING_URI": store.client.tracking_uri, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    before, level = {name: os.environ.get(name) for name in ours}, logging.getLogger("mlflow").level
    os.environ.update(ours)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.set_experiment(experiment_id=store.experiment_id)
            yield
    finally:
        logging.getLogger("mlflow").setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _code(scratch: Path, folder: Path) -> Path:
    """Copy the files of this package that a prediction of the model in ``folder`` runs; return the folder above them."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    module = detectors.module_name(detectors.method_of(facts["detector"], facts["params"]))
    package = scratch / "nullscope"
    for name in {*_closure(SERVED), *_closure(module)}:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(imports.PACKAGE / name, package / name)
    for place in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (place / "__init__.py").touch()
    return scratch


@cache
def _closure(module: str) -> tuple[str, ...]:
    """Return the files that a module runs; most are the same for every model."""
    return tuple(imports.closure(module))


def _example() -> bytes:
    """Return a small PNG, a grey ramp: what an input looks like to whoever reads the model's page."""
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3))).save(file, "PNG")
    return file.getvalue()
