"""A project with its database, and a real MLflow server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Mlflow
from tracking.synthetic import Project

from nullscope.tracking import address, store, training


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema and nothing in it, made once: it takes a second."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    store._create_schema(file)
    return file


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that has no database yet."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "NULLSCOPE_TRACKING", "RANK", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    address._say_off.cache_clear()
    root = tmp_path / "a project 100% #1"
    root.mkdir()
    monkeypatch.chdir(root)
    return Project(root)


@pytest.fixture
def project(bare: Project, empty_database: Path) -> Project:
    shutil.copy(empty_database, bare.root / "mlflow.db")
    return bare


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches every few milliseconds."""
    monkeypatch.setattr(training, "BATCH_S", 0.02)
    monkeypatch.setattr(training, "RETRY_S", 0.02)


@pytest.fixture
def server(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    """A real MLflow server, whose address is in the environment."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    running = Mlflow(folder)
    try:
        running.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
        yield running
    finally:
        running.kill()
