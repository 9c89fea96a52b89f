"""Publish the results of a project to MLflow. Idempotent, so that it can follow every ``dvc repro`` and ``dvc pull``.

A run is found by the content of its model. A model that DVC restored from its cache, and that was not trained here, gets a run
too, with the curves of the history in its folder. Runs of models that are gone stay, as a record of what was tried.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nullscope.core import runs
from nullscope.core.config import read_params, section_of
from nullscope.core.files import content_sha256, sha256
from nullscope.evaluation.history import read_history
from nullscope.locked import locked_md5s
from nullscope.tracking.address import TrackingError, say, switched_on, tracking_uri
from nullscope.tracking.facts import (
    CURRENT,
    CURVE,
    MODEL,
    PUBLISHED,
    SYSTEM,
    flat_metrics,
    flat_params,
    machine_tags,
    model_files,
    origin_tags,
)
from nullscope.tracking.store import Store, explained, open_store, patience
from nullscope.tracking.training import logged_steps, run_tags
from nullscope.tracking.turn import turn
from nullscope.tracking.view import share_view

if TYPE_CHECKING:
    from mlflow.entities import Run


INDEX = "data/index.parquet"  # the output that stands for a data set: one row per image, with the hash of its bytes


@dataclass(frozen=True)
class Row:
    """What became of one model of the project."""

    name: str
    status: str  # created, updated, unchanged or missing
    acc: float | None = None
    ap: float | None = None
    missing: str = ""  # the file or folder that should be there
    remedy: str = ""  # the command that makes it


@dataclass(frozen=True)
class _Model:
    """One model of the project and the files that are shown with it."""

    root: Path
    run: runs.Run
    index_md5: str  # of the data set, as dvc.lock has it; empty where nothing was run yet

    @property
    def folder(self) -> Path:
        return self.root / "models" / self.run.name

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics" / f"{self.run.name}.json"

    def metrics(self) -> dict[str, float]:
        return flat_metrics(_json(self.metrics_file)) if self.metrics_file.is_file() else {}

    def shown_files(self) -> list[Path]:
        """Return the metrics file and the report's page and figures, those that exist."""
        report = self.root / "reports"
        files = [self.metrics_file, report / "index.html", *sorted((report / "figures").rglob("*"))]
        return [file for file in files if file.is_file()]


def publish(root: Path) -> list[Row]:
    """Bring MLflow up to date with the models, metrics and report of the project at ``root``; a row per model.

    A missing model is a row, not an error. Two that publish at once wait for each other, on one machine or on two. Raises
    `TrackingError` if the store cannot be used or a file cannot be read, `ParamsError` if ``params.yaml`` does not say which
    models there are.
    """
    root = Path(root).resolve()
    if not switched_on():
        return []
    wanted = runs.runs_of(read_params(root / "params.yaml"))
    store = open_store(root)
    with explained(tracking_uri(root)), patience(retries=3, timeout_s=60), turn(store):
        share_view(store)
        index_md5 = locked_md5s(root).get(INDEX, "")
        done = [_publish_model(store, _Model(root, run, index_md5)) for run in wanted]
        _retire(store, {run.name for run in wanted}, {row.name: run_id for row, run_id in done})
    return [row for row, _ in done]


def _publish_model(store: Store, model: _Model) -> tuple[Row, str]:
    """Return the row of ``model`` and the identifier of its run, empty if there is no model."""
    if not (model.folder / "detector.json").is_file():
        where = model.folder.relative_to(model.root)
        return Row(model.run.name, "missing", missing=str(where), remedy=model.run.remedy), ""
    digest, shown = content_sha256(model_files(model.folder), model.folder), content_sha256(model.shown_files(), model.root)
    run = _only(store, f"tags.`{MODEL}` = '{digest}' and tags.`nullscope.detector` = '{model.run.detector}'")
    if run is None:
        status, run = "created", _create(store, model, digest)
    elif run.data.tags.get(PUBLISHED) == shown and run.data.tags.get(CURRENT) == "true":
        status = "unchanged"
    else:
        status = "updated"
    if status != "unchanged":
        _fill(store, model, run, shown)
    metrics = model.metrics()
    missing = "" if metrics else str(model.metrics_file.relative_to(model.root))
    stage = "evaluate_official" if model.run.is_official else "evaluate"
    remedy = f"dvc repro {stage}@{model.run.name}, or dvc pull" if missing else ""
    return Row(model.run.name, status, metrics.get("acc"), metrics.get("ap"), missing, remedy), run.info.run_id


def _create(store: Store, model: _Model, digest: str) -> Run:
    """Create the run of a model that was not trained here: the tags of this machine begin with ``publisher.``."""
    tags = origin_tags(model.root, model.run) | {MODEL: digest, CURRENT: "false"}
    tags |= {f"publisher.{key}": value for key, value in machine_tags().items()}
    return store.client.create_run(store.experiment_id, run_name=model.run.name, tags=tags)


def _fill(store: Store, model: _Model, run: Run, shown: str) -> None:
    """Write everything into ``run``. The tag that says that it is complete is removed first and written last."""
    run_id, client = run.info.run_id, store.client
    params, metrics = _new_params(model, run), [*_curves(store, model, run), *_changed_metrics(model, run)]
    client.log_batch(run_id, tags=run_tags({PUBLISHED: "in progress"}))
    client.log_batch(run_id, params=params, metrics=metrics)
    if not run.inputs.dataset_inputs:
        client.log_inputs(run_id, _datasets(model))
    for file in model_files(model.folder):
        client.log_artifact(run_id, str(file), _artifact_folder("model", file.relative_to(model.folder)))
    for file in model.shown_files():
        client.log_artifact(run_id, str(file), _artifact_folder("", file.relative_to(model.root)))
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, status="FINISHED")
    lock = model.root / "dvc.lock"
    tags = {"dvc.lock": sha256(lock)} if lock.is_file() else {}
    client.log_batch(run_id, tags=run_tags({**tags, CURRENT: "true", PUBLISHED: shown}))


def _new_params(model: _Model, run: Run) -> list[Any]:
    """Return the parameters that ``run`` lacks: MLflow never changes one, and the live run wrote the detector's own."""
    from mlflow.entities import Param

    facts = _json(model.folder / "detector.json")
    own = facts.pop("params", {})
    facts.pop("backbones", None)  # a hash per file: the artefact detector.json has them
    params = flat_params({**facts, **own})
    other = sorted(key for key, value in params.items() if run.data.params.get(key, value) != value)
    if other:
        name, live = model.run.name, run.info.run_id
        say(f"{name}: the live run {live} was given other values of {', '.join(other)} than detector.json holds")
    return [Param(key, value) for key, value in params.items() if key not in run.data.params]


def _datasets(model: _Model) -> list[Any]:
    """Return the data set of a model as MLflow has it: name, digest and source of the index that dvc.lock names.

    Weights that were not trained here were tested on it only. Without dvc.lock (nothing was run yet) there is none.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not model.index_md5:
        return []
    context = "evaluation" if model.run.is_official else "training, evaluation"
    source = json.dumps({"dvc": INDEX, "md5": model.index_md5})
    name = section_of(read_params(model.root / "params.yaml"), "dataset.name")
    return [DatasetInput(Dataset(name, model.index_md5[:8], "dvc", source), [InputTag("mlflow.data.context", context)])]


def _curves(store: Store, model: _Model, run: Run) -> list[Any]:
    """Return the points of ``history.csv`` that ``run`` lacks: all of them, or those that a failing store did not take.

    They have the names and steps that a live training logs: its losses at every step, and ``val_loss``, ``val_ap`` and
    ``val_auroc`` at the last step of an epoch. Released weights have no history, and no curves.
    """
    from mlflow.entities import Metric

    try:
        history = read_history(model.folder / "history.csv")
    except ValueError as error:
        raise TrackingError(str(error)) from None
    if history is None:
        return []
    logged, now = logged_steps(store, run), _now_ms()
    points = [
        (CURVE + column, int(step), float(value))
        for column in history.values
        for step, value in zip(*history.points(column), strict=True)
    ]
    return [Metric(name, value, now, step) for name, step, value in points if (name, step) not in logged]


def _changed_metrics(model: _Model, run: Run) -> list[Any]:
    """Return the metrics that differ from those that ``run`` shows. One that is no longer computed becomes NaN.

    Where the metrics file is missing nothing changes: another machine may have published it.
    """
    from mlflow.entities import Metric

    metrics, now = model.metrics(), _now_ms()
    if not metrics:
        return []
    known = {name: value for name, value in run.data.metrics.items() if not name.startswith((CURVE, SYSTEM))}
    gone = {name: math.nan for name, value in known.items() if name not in metrics and not math.isnan(value)}
    changed = {name: value for name, value in metrics.items() if known.get(name) != value} | gone
    return [Metric(name, value, now, 0) for name, value in changed.items()]


def _retire(store: Store, wanted: set[str], current: dict[str, str]) -> None:
    """Mark the runs that are no longer current: another model has their name now, or the parameters no longer ask for them.

    The run of a model that is only absent (not pulled, or not yet trained) stays as it is.
    """
    for run in store.client.search_runs([store.experiment_id], f"tags.`{CURRENT}` = 'true'"):
        name = run.info.run_name
        absent = name in wanted and not current[name]
        if run.info.run_id != current.get(name) and not absent:
            store.client.set_tag(run.info.run_id, CURRENT, "false")


def _only(store: Store, query: str) -> Run | None:
    """Return the run of a model; where it was trained twice, on two machines or again, the others are deleted.

    The one that is published stays, so that nothing that points to it moves; before that, the newest.
    """
    found = store.client.search_runs([store.experiment_id], query, order_by=["attributes.start_time DESC"])
    found.sort(key=lambda run: PUBLISHED not in run.data.tags)
    for other in found[1:]:
        store.client.delete_run(other.info.run_id)
    return found[0] if found else None


def _artifact_folder(first: str, file: Path) -> str | None:
    """Return the folder of ``file`` among the artefacts, None for their root."""
    folder = (Path(first) / file.parent).as_posix()
    return None if folder == "." else folder


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrackingError(f"{file} is not JSON ({error}); remedy: delete it and run `dvc repro`") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
