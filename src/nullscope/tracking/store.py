"""The tracking store: made usable once, in a step of its own, and opened with bounded patience."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nullscope.core import ranks
from nullscope.core.files import replacing
from nullscope.tracking import view
from nullscope.tracking.address import SWITCH, TrackingError, project_root, shown, sqlite_file, switched_on, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "nullscope"
KIND, VIEW = "custom_model_development", "workflowType=machine_learning"  # or MLflow's pages open on traces of chat bots
STORES = ("mlflow", "sqlalchemy", "sqlite3", "requests", "alembic")  # packages whose errors are the store's
SQLITE_PATIENCE_S = 20  # how long to wait for another process that writes; MLflow waits as long


@dataclass(frozen=True)
class Store:
    """An open tracking store."""

    client: MlflowClient
    experiment_id: str
    lock: Path  # held by whoever publishes, so that two at once create no run twice


def check_store(start: Path = Path()) -> None:
    """Make the tracking store of the project at ``start`` usable; do nothing where tracking is off.

    Creates or upgrades the schema of a SQLite database (once, however many processes call this), asks a server for an
    answer within seconds, and creates the experiment. Raises `TrackingError` saying what failed and what to do.
    """
    if switched_on() and ranks.rank() == 0:
        open_store(start)


def open_store(start: Path) -> Store:
    """Return the usable store of the project at ``start``. Raises `TrackingError` as `check_store` does."""
    uri = tracking_uri(start)
    file = sqlite_file(uri)
    lock = file.with_name(f"{file.name}.lock") if file else project_root(start) / ".nullscope" / "mlflow.lock"
    with explained(uri), patience(retries=1, timeout_s=4):
        if file is None:
            client = _connect(uri)
            return Store(client, _experiment(client, uri, _artifacts(uri, start)), lock)
        with locked(lock):
            client = _open_sqlite(uri, file)
            return Store(client, _experiment(client, uri, (file.parent / "mlartifacts").as_uri()), lock)


def viewer(start: Path = Path()) -> str:
    """Return how to look at the runs: the command that serves them, unless a server does, and the page."""
    shared = f"viewStateShareKey={view.KEY}"
    uri, page = tracking_uri(start), f"/#/experiments/{open_store(start).experiment_id}/runs?{VIEW}&{shared}"
    if uri.startswith("http"):
        return f"{shown(uri).rstrip('/')}{page}"
    return f"mlflow ui --backend-store-uri {shlex.quote(shown(uri))}\nand open http://127.0.0.1:5000{page}"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock on ``file``, waiting for it; the system releases it when the process ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what the store at ``uri`` fails with into one `TrackingError` that has the address, the cause and the remedies."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError | ImportError) and type(error).__module__.partition(".")[0] not in STORES:
            raise  # a `TrackingError`, or a fault of ours
        if sqlite_file(uri):
            expected, remedy = "an MLflow database that can be written", "free the file, or name another in MLFLOW_TRACKING_URI"
        else:
            expected, remedy = "an MLflow store that answers", "start it, or unset MLFLOW_TRACKING_URI for a local database"
        cause = shown(" ".join(str(_innermost(error)).split()))[:300]
        raise TrackingError(f"{shown(uri)}: expected {expected}, found: {cause}; remedies: {remedy}, or {SWITCH}=off") from None


def _innermost(error: BaseException) -> BaseException:
    """Return the operating system's or the database's word at the bottom of ``error``, if there is one, or ``error``."""
    bottom = error
    while bottom.__cause__ or bottom.__context__:
        bottom = bottom.__cause__ or bottom.__context__
    return bottom if isinstance(bottom, OSError | sqlite3.Error) else error


@contextmanager
def patience(retries: int, timeout_s: int) -> Iterator[None]:
    """Bound MLflow's HTTP requests, in this process; what the user set in the environment stands.

    MLflow's own bounds, 7 retries of 120 s with doubling pauses, are minutes of silence before an error.
    """
    ours = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s)}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _connect(uri: str) -> MlflowClient:
    """Return a client of the store at ``uri``; the first call imports MLflow, quietly."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports usage to its makers over the network
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with warnings.catch_warnings():
        # MLflow 3.17 maps its tables with an option that SQLAlchemy 2.1 deprecates; its affair, not our users'.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        from mlflow import MlflowClient
        from mlflow.store.db import utils as databases

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # a line per table created
        for name in (databases.__name__, "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # these tell, at length, what `explained` tells in a line
        databases.MAX_RETRY_COUNT = 3  # ten attempts at a database that is not there take 100 s
        return MlflowClient(tracking_uri=uri)


def _open_sqlite(uri: str, file: Path) -> MlflowClient:
    """Return a client of the database ``file``, its schema created or upgraded. The caller holds the lock."""
    if not file.exists() or file.stat().st_size == 0:
        with replacing(file) as partial:
            _create_schema(partial)
    _check_writable(uri, file)
    try:
        return _connect(uri)
    except Exception as error:
        if "out-of-date database schema" not in str(error):
            raise
    _upgrade_schema(uri)
    return _connect(uri)


def _create_schema(file: Path) -> None:
    """Write an empty MLflow database. Not synced to the disk step by step: 1 s instead of 5, and a torn one is never renamed."""
    import sqlalchemy

    def unsynced(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", unsynced)
    try:
        _connect(f"sqlite:///{file}")
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", unsynced)


def _check_writable(uri: str, file: Path) -> None:
    """Take and release the write lock. MLflow itself retries a database it cannot open for 100 s before it says so."""
    name = uri.partition("///")[2]
    with closing(sqlite3.connect(name if name.startswith("file:") else file, timeout=SQLITE_PATIENCE_S, uri=True)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()


def _upgrade_schema(uri: str) -> None:
    """Bring the schema to this MLflow's revision. Raises `TrackingError` if it is of a newer MLflow."""
    import alembic.util
    import mlflow
    from mlflow.store.db import utils as databases

    try:
        databases._upgrade_db(databases.create_sqlalchemy_engine(uri))  # what `mlflow db upgrade` calls
    except alembic.util.CommandError as error:
        raise TrackingError(
            f"{shown(uri)}: expected a schema that MLflow {mlflow.__version__} knows, found a newer one ({error}); "
            "remedies: upgrade mlflow, or move the database aside and publish again"
        ) from None


def _artifacts(uri: str, start: Path) -> str | None:
    """Return where artifacts of a store that is no file go: a server decides itself, a bare database cannot."""
    return None if uri.startswith(("http", "databricks")) else (project_root(start) / "mlartifacts").as_uri()


def _experiment(client: MlflowClient, uri: str, artifacts: str | None) -> str:
    """Return the identifier of the experiment, created if it does not exist, whoever else is creating it."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts, tags={"mlflow.experimentKind": KIND})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"{shown(uri)}: the experiment `{name}` was deleted; remedies: `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or name another one in MLFLOW_EXPERIMENT_NAME"
        )
    return found.experiment_id
