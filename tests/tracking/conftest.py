"""A project with its database, and a real MLflow server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
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
def server(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], None]]]:
    """A real MLflow server on a free port: its address, already in the environment, and how to kill it."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    with open(folder / "log", "w") as log:
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{uri}/health", process)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri, partial(_kill, process)
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the server with its workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the MLflow server did not start; its log lies beside its database")
