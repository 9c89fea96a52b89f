"""The store: made by many at once, found from everywhere, and one clear line where it cannot be used."""

import http.server
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tracking.synthetic import Project

from nullscope import tracking
from nullscope.tracking.address import project_root, shown


@pytest.mark.slow
def test_four_at_once_prepare_an_empty_database(bare: Project) -> None:
    command = [sys.executable, "-W", "error", "-c", "from nullscope import tracking; tracking.check_store()"]
    four = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in four]
    assert [process.returncode for process in four] == [0] * 4, errors
    assert errors == [""] * 4, "MLflow's notes on the schema are noise"
    with closing(sqlite3.connect(bare.root / "mlflow.db")) as database:
        (found,) = database.execute("SELECT artifact_location FROM experiments WHERE name = 'nullscope'").fetchall()
    assert found == ((bare.root / "mlartifacts").as_uri(),)


def test_importing_is_cheap() -> None:
    script = "import sys, nullscope.tracking; print(sorted({'mlflow', 'sqlalchemy', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_copy_that_dvc_makes_for_an_experiment_belongs_to_its_project(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    copy.mkdir(parents=True)
    for folder in (tmp_path, copy):
        (folder / "dvc.yaml").touch()
    assert project_root(copy) == tmp_path


def test_no_project_is_an_error(tmp_path: Path, bare: Project) -> None:
    with pytest.raises(tracking.TrackingError, match=r"no dvc\.yaml in .* run this from the project, or set MLFLOW_TRACKING_URI"):
        tracking.tracking_uri(tmp_path)


def test_a_relative_database_is_one_file_from_every_folder(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/all.db")
    monkeypatch.chdir(bare.root / "models")
    assert tracking.tracking_uri() == f"sqlite:///{bare.root}/runs/all.db"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("htp://user:pa@ss/wd@host:5000", r"htp://\*\*\*@host:5000.*found the scheme `htp`"),
        ("localhost:5000", "did you mean http://localhost:5000"),
        ("http:/localhost:5000", "expected http://host:port"),
        ("file:///somewhere", "no longer writes plain folders"),
        ("mlruns", "no longer writes plain folders"),
        ("sqlite://mlflow.db", "expected a file"),
        ("sqlite:///:memory:", "expected a file"),
        ("postgresql://user:secret@127.0.0.1:9/runs", r"postgresql://\*\*\*@127.0.0.1:9/runs: expected an MLflow store"),
    ],
)
def test_an_address_that_is_none(bare: Project, monkeypatch: pytest.MonkeyPatch, uri: str, says: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(tracking.TrackingError, match=says) as error:
        tracking.check_store()
    assert_clear(error.value)


def test_a_server_that_is_not_there(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(tracking.TrackingError, match=r"http://\*\*\*@127.0.0.1:9: expected .* refused; remedies") as error:
        tracking.check_store()
    assert time.monotonic() - start < 10
    assert_clear(error.value)
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


@pytest.mark.parametrize("kind", ["another", "silent"])
def test_a_server_that_is_another_or_silent(bare: Project, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with OtherServer(pause_s=3 if kind == "silent" else 0) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        start = time.monotonic()
        with pytest.raises(tracking.TrackingError, match="timed out" if kind == "silent" else "404") as error:
            tracking.check_store()
        assert time.monotonic() - start < 10
    assert_clear(error.value)


def test_a_database_that_cannot_be_written(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By the address and not by the file's mode: the tests may run as root, who may write everything.
    shutil.copy(project.root / "mlflow.db", tmp_path / "kept.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///file:{tmp_path}/kept.db?mode=ro&uri=true")
    with pytest.raises(tracking.TrackingError, match="attempt to write a readonly database") as error:
        tracking.check_store()
    assert_clear(error.value)


def test_a_file_that_is_no_database(bare: Project) -> None:
    (bare.root / "mlflow.db").write_text("these are my notes on MLflow\n" * 50)
    with pytest.raises(tracking.TrackingError, match="file is not a database") as error:
        tracking.check_store()
    assert_clear(error.value)


def test_a_folder_that_cannot_be_made(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare.root / "runs").write_text("a file")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/all.db")
    with pytest.raises(tracking.TrackingError, match="expected an MLflow database that can be written") as error:
        tracking.check_store()
    assert_clear(error.value)


def test_a_database_of_a_newer_mlflow(project: Project) -> None:
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
        database.commit()
    with pytest.raises(tracking.TrackingError, match=r"found a newer one .*remedies: upgrade mlflow") as error:
        tracking.check_store()
    assert_clear(error.value)


def test_a_database_of_an_older_mlflow_is_upgraded(bare: Project) -> None:
    import alembic.command
    import sqlalchemy
    from mlflow.store.db import utils as databases
    from mlflow.store.tracking.dbmodels.initial_models import Base

    uri = f"sqlite:///{bare.root}/mlflow.db"
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = databases._get_alembic_config(uri)
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head-1")
    tracking.check_store()
    assert databases._get_schema_version(engine) == databases._get_latest_schema_revision()


def test_a_word_that_switches_nothing(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NULLSCOPE_TRACKING", "none")
    with pytest.raises(tracking.TrackingError, match="expected `on` or `off`, found 'none'"):
        tracking.check_store()


def test_credentials_are_blotted_out() -> None:
    assert shown("https://me:p@ss/w@rd@host/path failed, https://a:b@c") == "https://***@host/path failed, https://***@c"
    assert shown("sqlite:////srv/me/mlflow.db") == "sqlite:////srv/me/mlflow.db"


def assert_clear(error: tracking.TrackingError) -> None:
    """One line, with a remedy, without a secret."""
    text = str(error)
    assert "\n" not in text
    assert "remedies: " in text or "four slashes" in text
    assert not re.search("secret|pa@ss|wd@", text)
    assert len(text) < 800


class OtherServer:
    """A server on a free port that knows nothing of MLflow, or answers late."""

    def __init__(self, pause_s: float) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(pause_s)
                with suppress(BrokenPipeError):  # the client has given up
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
