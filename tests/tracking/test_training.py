"""Live runs: found again by `publish`, continued after a crash, and never in the way of a training."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import Mlflow
from tracking.synthetic import STEPS, VALIDATION, Project, loss, validation

from nullscope import tracking
from nullscope.tracking import store, training

pytestmark = pytest.mark.usefixtures("quick")


def train(project: Project, steps: range = range(STEPS)) -> None:
    with tracking.live("ns_net", 0, project.params(), inputs="data") as run:
        for step in steps:
            run.log(step, {"bce": loss(step), **validation(step)})
        run.finish(project.root / "models" / "ns_net-0")


def test_a_live_run_and_publishing_are_one_run(project: Project) -> None:
    tracking.check_store()
    train(project)
    run = project.run("ns_net")
    assert run.info.status == "FINISHED"
    assert run.data.params["lora.rank"] == "6"
    assert run.data.tags["version.torch"]
    assert run.data.tags["nullscope.current"] == "false"
    assert {row.name: row.status for row in tracking.publish(project.root)} == {"clip_lora-0": "created", "ns_net-0": "updated"}
    assert project.run("ns_net").info.run_id == run.info.run_id
    assert project.points("ns_net", "train/bce") == [(step, loss(step)) for step in range(STEPS)]
    assert len(project.points("ns_net", "train/loss")) == STEPS, "what the live run did not log comes from the history"
    for name in VALIDATION:
        assert project.points("ns_net", f"train/{name}") == [(step, validation(step)[name]) for step in (9, 19, 29)], "once each"


def test_losses_arrive_while_it_trains(project: Project) -> None:
    with tracking.live("ns_net", 0, project.params()) as run:
        run.log(0, {"bce": 1.0})
        deadline = time.monotonic() + 20
        while "train/bce" not in project.run("ns_net").data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert project.run("ns_net").info.status == "RUNNING"


def test_two_clones_train_the_same_at_once_and_the_model_is_there_once(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own run while it trains: neither takes the other's for its own that crashed. Then the models are the same."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/mlflow.db")
    other = shutil.copytree(project.root, tmp_path / "the other clone")
    with tracking.live("ns_net", 0, project.params(), inputs="data") as ours:
        monkeypatch.chdir(other)
        with tracking.live("ns_net", 0, project.params(), inputs="data") as theirs:
            for step in range(STEPS):
                ours.log(step, {"bce": loss(step)})
                theirs.log(step, {"bce": loss(step)})
            theirs.finish(other / "models" / "ns_net-0")
        ours.finish(project.root / "models" / "ns_net-0")
    assert len(project.runs()) == 2
    tracking.publish(project.root)
    first = project.run("ns_net").info.run_id
    tracking.publish(other)
    assert project.run("ns_net").info.run_id == first and len(project.runs()) == 2, "one of this model, one of the other"
    assert project.points("ns_net", "train/bce") == [(step, loss(step)) for step in range(STEPS)]


@pytest.mark.slow
def test_a_training_killed_on_the_spot_goes_on_in_its_run(project: Project) -> None:
    script = (
        "import os, signal, time\n"
        "from nullscope import tracking\n"
        "tracking.training.BATCH_S = 0.02\n"
        f"with tracking.live('ns_net', 0, {project.params()!r}, inputs='data') as run:\n"
        "    for step in range(20): run.log(step, {'bce': 0.5})\n"
        "    time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = project.run("ns_net")
    assert (killed.info.status, len(project.points("ns_net", "train/bce"))) == ("RUNNING", 20)
    train(project, range(10, STEPS))  # from the last checkpoint
    run = project.run("ns_net")
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    assert [step for step, _ in project.points("ns_net", "train/bce")] == list(range(STEPS))


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "FAILED")])
def test_the_status_says_how_it_ended_and_the_next_one_goes_on(project: Project, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracking.live("ns_net", 0, project.params(), inputs="data") as run:
        run.log(0, {"bce": loss(0)})
        raise error
    assert project.run("ns_net").info.status == status
    with pytest.raises(ValueError, match="stop"), tracking.live("ns_net", 0, project.params(), inputs="data"):
        assert project.run("ns_net").info.status == "RUNNING"
        raise ValueError("stop")
    train(project)
    assert project.run("ns_net").info.status == "FINISHED"
    assert len(project.points("ns_net", "train/bce")) == STEPS


def test_other_parameters_or_data_are_another_run(project: Project) -> None:
    for params, inputs in (({"lr": 1}, "a"), ({"lr": 2}, "a"), ({"lr": 2}, "b")):
        with pytest.raises(ValueError, match="stop"), tracking.live("ns_net", 0, params, inputs):
            raise ValueError("stop")
    assert len(project.runs()) == 3


def test_a_store_that_fails_neither_stops_nor_slows(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    def failing(*_: object, **__: object) -> None:
        time.sleep(0.2)
        raise OSError("no route to https://user:secret@host/")

    monkeypatch.setattr(training, "FAREWELL_S", 2)
    with tracking.live("ns_net", 0, project.params(), inputs="data") as run:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_batch", failing)
            start = time.perf_counter()
            for step in range(2000):
                run.log(step, {"bce": loss(step), "null": 1.0})
            assert (time.perf_counter() - start) / 2000 < 50e-6, "a step must cost microseconds"
            time.sleep(0.6)
        run.log(2000, {"bce": 0.0})
    assert capfd.readouterr().err.count("MLflow failed (no route to https://***@host/)") == 1
    assert len(project.points("ns_net", "train/bce")) == 2001, "what was kept is sent when the store is back"


def test_a_store_that_hangs_ends_with_the_training(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(training, "FAREWELL_S", 0.3)
    start = time.monotonic()
    with monkeypatch.context() as patch, tracking.live("ns_net", 0, {}) as run:
        patch.setattr(MlflowClient, "log_batch", lambda *_, **__: time.sleep(3))
        run.log(0, {"bce": 1.0})
    assert time.monotonic() - start < 2.5
    assert "no answer within" in capfd.readouterr().err


def test_a_store_that_cannot_be_opened_leaves_the_training_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    train(project)
    assert "the training goes on" in capfd.readouterr().err


def test_off_does_nothing_and_says_so_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NULLSCOPE_TRACKING", "off")
    monkeypatch.setattr(training, "open_store", None)
    tracking.check_store()
    train(project)
    assert tracking.publish(project.root) == []
    assert capfd.readouterr().err == "tracking: off (NULLSCOPE_TRACKING=off): nothing is sent to MLflow\n"


def test_only_the_first_rank_has_a_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        train(project)
    assert project.runs() == []


def test_an_experiment_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "leafy-foil")
    train(project)
    assert project.run("ns_net").data.tags["dvc.exp.name"] == "leafy-foil"


@pytest.mark.slow
def test_a_real_server_that_dies_in_the_middle(bare: Project, server: Mlflow, capfd: pytest.CaptureFixture[str]) -> None:
    """A server is started, used for everything, and killed under a training."""
    project = bare
    tracking.check_store()
    train(project)
    assert {row.name: row.status for row in tracking.publish(project.root)} == {"clip_lora-0": "created", "ns_net-0": "updated"}
    assert {row.status for row in tracking.publish(project.root)} == {"unchanged"}
    assert project.points("ns_net", "train/bce") == [(step, loss(step)) for step in range(STEPS)]
    opened = store.open_store(project.root)
    artifacts = {entry.path for entry in opened.client.list_artifacts(project.run("ns_net").info.run_id, "model")}
    assert "model/weights.safetensors" in artifacts
    assert not (project.root / "mlflow.db.lock").exists()
    assert tracking.viewer().startswith(f"{server.uri}/#/experiments/")
    capfd.readouterr()
    with tracking.live("clip_lora", 0, {}) as run:
        server.kill()
        start = time.monotonic()
        for step in range(200):
            run.log(step, {"bce": 1.0})
        time.sleep(0.5)
        assert time.monotonic() - start < 1
    assert capfd.readouterr().err.count("MLflow failed") == 1
    with pytest.raises(tracking.TrackingError, match="expected an MLflow store that answers"):
        tracking.publish(project.root)
