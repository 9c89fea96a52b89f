"""Publishing: idempotent, complete, repaired after a crash, and one run per model whoever made it."""

import fcntl
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tracking.synthetic import DETECTORS, STEPS, VALIDATION, Project, loss, validation

from nullscope import tracking
from nullscope.evaluation.protocol import evaluate
from nullscope.tracking import publishing, store
from nullscope.tracking.facts import flat_metrics, flat_params

TRACK = Path(__file__).parents[2] / "stages" / "track.py"


def statuses(rows: list[tracking.Row]) -> dict[str, str]:
    return {row.name: row.status for row in rows}


def everything(project: Project) -> dict:
    """Return all that MLflow holds, histories included."""
    held = {}
    for run in project.runs():
        curves = {metric: project.points(run.data.tags["nullscope.detector"], metric) for metric in run.data.metrics}
        held[run.info.run_id] = (run.data.params, run.data.tags, run.info.status, run.info.end_time, curves)
    return held


def test_a_model_that_was_never_trained_here_appears_complete(project: Project) -> None:
    rows = tracking.publish(project.root)
    assert [(row.name, row.status, row.acc, row.ap) for row in rows] == [(f"{d}-0", "created", 0.75, 0.8) for d in DETECTORS]
    run = project.run("ns_net")
    assert run.info.status == "FINISHED"
    assert project.points("ns_net", "train/bce") == [(step, loss(step)) for step in range(STEPS)]
    assert project.points("ns_net", "train/warm") == [(step, loss(step)) for step in range(5)], "empty cells are no points"
    for name in VALIDATION:
        assert project.points("ns_net", f"train/{name}") == [(step, validation(step)[name]) for step in (9, 19, 29)]
    assert "train/epoch" not in run.data.metrics
    assert run.data.metrics["acc_degraded/jpeg_75"] == 0.6
    assert run.data.metrics["f_acc/progan"] == 0.9
    assert run.data.params["lora.rank"] == "6"
    assert run.data.params["patches.patch_px"] == "16"
    assert len(run.data.params["note"]) == 6000
    assert set(run.data.params) == {"detector", "seed", "format", "lr", "lora.rank", "note", "patches.patch_px"}
    tags = run.data.tags
    assert (tags["nullscope.detector"], tags["nullscope.seed"], tags["dvc.stage"]) == ("ns_net", "0", "train@ns_net-0")
    assert "version.torch" not in tags, "the machine that publishes is not the one that trained"
    assert project.artifacts("ns_net") == {
        "model/detector.json",
        "model/history.csv",
        "model/weights.safetensors",
        "metrics/ns_net-0.json",
        "reports/index.html",
        "reports/figures/roc.png",
    }


def test_publishing_again_changes_nothing(project: Project) -> None:
    tracking.publish(project.root)
    before = everything(project)
    assert statuses(tracking.publish(project.root)) == {f"{d}-0": "unchanged" for d in DETECTORS}
    assert everything(project) == before


def test_changed_metrics_update_the_run(project: Project) -> None:
    project.evaluate("ns_net", acc=0.75, auroc=0.7)
    tracking.publish(project.root)
    project.evaluate("ns_net", acc=0.5)
    assert statuses(tracking.publish(project.root)) == {"clip_lora-0": "unchanged", "ns_net-0": "updated"}
    assert len(project.runs()) == len(DETECTORS)
    metrics = project.run("ns_net").data.metrics
    assert metrics["acc"] == 0.5
    assert math.isnan(metrics["auroc"]), "a metric that is no longer computed must not stand as if it were"
    assert len(project.points("ns_net", "ap")) == 1
    assert len(project.points("ns_net", "train/loss")) == STEPS
    assert set(statuses(tracking.publish(project.root)).values()) == {"unchanged"}


def test_a_changed_report_updates_every_run(project: Project) -> None:
    tracking.publish(project.root)
    (project.root / "reports" / "index.html").write_text("<h1>another</h1>")
    assert set(statuses(tracking.publish(project.root)).values()) == {"updated"}


def test_a_new_model_supersedes_and_the_old_run_stays(project: Project) -> None:
    tracking.publish(project.root)
    project.train("ns_net", weights=b"better")
    assert statuses(tracking.publish(project.root)) == {"clip_lora-0": "unchanged", "ns_net-0": "created"}
    new, old = [run.data.tags["nullscope.current"] for run in project.runs() if run.info.run_name == "ns_net-0"]
    assert (new, old) == ("true", "false")
    project.train("ns_net")  # as `git checkout` and `dvc checkout` bring it back
    assert statuses(tracking.publish(project.root)) == {"clip_lora-0": "unchanged", "ns_net-0": "updated"}
    new, old = [run.data.tags["nullscope.current"] for run in project.runs() if run.info.run_name == "ns_net-0"]
    assert (new, old) == ("false", "true")


def test_released_weights_are_a_run_without_a_seed_or_a_curve(project: Project) -> None:
    (project.root / "params.yaml").write_text(
        "dataset: {name: world}\nrun: {detectors: [ns_net], seeds: [0], official: [npr_official, npr_new]}\n"
    )
    folder = project.root / "models" / "npr_official"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"released")
    (folder / "detector.json").write_text('{"detector": "npr", "seed": 0, "weights": "official", "params": {"lr": 0.1}}')
    shutil.copy(project.root / "metrics" / "ns_net-0.json", project.root / "metrics" / "npr_official.json")
    trained, released, absent = tracking.publish(project.root)
    assert [(row.name, row.status) for row in (trained, released)] == [("ns_net-0", "created"), ("npr_official", "created")]
    assert (absent.missing, absent.remedy) == ("models/npr_new", "dvc pull models/npr_new.dvc, or nullscope import-weights")
    (run,) = [run for run in project.runs() if run.info.run_name == "npr_official"]
    assert run.data.tags["nullscope.weights"] == "official"
    assert not {"nullscope.seed", "dvc.stage"} & set(run.data.tags)
    assert project.run("ns_net").data.tags["nullscope.weights"] == "retrained"
    assert run.data.metrics["acc"] == 0.75
    assert not [name for name in run.data.metrics if name.startswith("train/")]
    assert {row.status for row in tracking.publish(project.root)} == {"unchanged", "missing"}


def test_a_detector_that_left_the_parameters_is_not_current(project: Project) -> None:
    tracking.publish(project.root)
    (project.root / "params.yaml").write_text("dataset: {name: world}\nrun: {detectors: [clip_lora], seeds: [0], official: []}\n")
    tracking.publish(project.root)
    assert project.run("ns_net").data.tags["nullscope.current"] == "false"


def test_what_is_missing_is_named_and_takes_nothing_back(project: Project) -> None:
    tracking.publish(project.root)
    shutil.rmtree(project.root / "models" / "clip_lora-0")
    (project.root / "metrics" / "ns_net-0.json").unlink()
    gone, bare = tracking.publish(project.root)
    assert (gone.status, gone.missing) == ("missing", "models/clip_lora-0")
    assert (bare.missing, bare.acc) == ("metrics/ns_net-0.json", None)
    assert "dvc repro" in gone.remedy
    assert "dvc repro" in bare.remedy
    assert project.run("clip_lora").data.tags["nullscope.current"] == "true"
    assert project.run("ns_net").data.metrics["acc"] == 0.75


def test_a_killed_publish_is_repaired(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "log_artifact", killed)
        tracking.publish(project.root)
    assert statuses(tracking.publish(project.root)) == {"clip_lora-0": "updated", "ns_net-0": "created"}
    assert project.run("clip_lora").info.status == "FINISHED"
    assert "model/weights.safetensors" in project.artifacts("clip_lora")
    for detector in DETECTORS:
        assert len(project.points(detector, "train/bce")) == STEPS


def test_a_killed_update_that_is_taken_back_is_repaired(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    tracking.publish(project.root)
    project.evaluate("ns_net", acc=0.5)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(MlflowClient, "log_artifact", lambda *_: 1 / 0)
        tracking.publish(project.root)
    project.evaluate("ns_net", acc=0.75)
    tracking.publish(project.root)
    assert project.run("ns_net").data.metrics["acc"] == 0.75


def test_nobody_else_looks_while_a_run_is_created(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    created, create = [], publishing._create

    def watched(*arguments: object) -> object:
        with open(project.root / "mlflow.db.lock") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        created.append(create(*arguments))
        return created[-1]

    monkeypatch.setattr(publishing, "_create", watched)
    tracking.publish(project.root)
    assert len(created) == len(DETECTORS)


@pytest.mark.slow
def test_two_at_once_create_one_run_per_model(project: Project) -> None:
    command = [sys.executable, "-W", "error", str(TRACK)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(out.count("created") for out, _ in outputs) == [0, 2], outputs
    assert len(project.runs()) == len(DETECTORS)
    assert all("mlflow ui --backend-store-uri 'sqlite:///" in out and not err for out, err in outputs), outputs


@pytest.mark.slow
def test_the_script_exits_1_where_something_is_missing(project: Project) -> None:
    shutil.rmtree(project.root / "models" / "clip_lora-0")
    done = subprocess.run([sys.executable, "-W", "error", str(TRACK)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "track: clip_lora-0: no models/clip_lora-0; run dvc repro train@clip_lora-0, or dvc pull" in done.stderr
    assert done.stderr.count("\n") == 1
    assert project.run("ns_net").info.status == "FINISHED"


def test_the_folder_one_stands_in_does_not_matter(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking.publish(project.root)
    monkeypatch.chdir(project.root / "models" / "ns_net-0")
    assert tracking.tracking_uri() == f"sqlite:///{project.root}/mlflow.db"
    assert set(statuses(tracking.publish(Path("../.."))).values()) == {"unchanged"}
    assert sorted(path.name for path in project.root.glob("ml*")) == ["mlartifacts", "mlflow.db", "mlflow.db.lock"]
    assert not list(Path().glob("ml*"))


def test_a_model_without_history_is_published_without_curves(project: Project) -> None:
    """Released weights have none: a model folder without it is complete."""
    (project.root / "models" / "ns_net-0" / "history.csv").unlink()
    assert statuses(tracking.publish(project.root)) == {"clip_lora-0": "created", "ns_net-0": "created"}
    run = project.run("ns_net")
    assert run.data.metrics["acc"] == 0.75 and not any(name.startswith("train/") for name in run.data.metrics)
    assert statuses(tracking.publish(project.root)) == {"clip_lora-0": "unchanged", "ns_net-0": "unchanged"}


@pytest.mark.parametrize("line", ["97,0,main,nonsense,1,1,,,", "0,0,main,1,1,1,,,", ",0,main,1,1,1,,,", "97,0,main,1"])
def test_a_broken_history_is_an_error_that_names_the_line(project: Project, line: str) -> None:
    with open(project.root / "models" / "ns_net-0" / "history.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(tracking.TrackingError, match=rf"history.csv, line {STEPS + 2}: expected"):
        tracking.publish(project.root)


def test_names_that_mlflow_refuses_are_told_apart() -> None:
    from mlflow.utils.validation import _validate_metric_name

    odd = ["a/b", "a\\b", "a_b", "..", ".", "", "é ü", "x" * 40, "//", "a?b", "A(b)", "50%"]
    flat = flat_metrics({"acc": 1, "subsets": {name: {"ap": number} for number, name in enumerate(odd)}})
    for name in flat:
        _validate_metric_name(name)
    assert sorted(value for name, value in flat.items() if name.startswith("ap")) == list(range(len(odd)))


def test_whatever_the_protocol_says_becomes_numbers() -> None:
    """Thresholds, sources and what was left out are tables: they stay in the file."""
    logits = np.linspace(-3, 1, 99)
    names = ("subset", "label", "logit", "degradation")
    kinds = [("a", 0, logits), ("b", 0, logits), ("a", 1, logits + 2), ("c", 1, logits + 1)]
    rows = [(subset, label, logit, clean) for clean in ("none", "jpeg_75") for subset, label, own in kinds for logit in own]
    table = pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=names)
    metrics = evaluate(table, val=table)
    assert {"frozen", "sources", "degradations"} <= set(metrics)
    flat = flat_metrics(metrics)
    assert all(isinstance(value, float) for value in flat.values()) and flat["auroc/c"] == metrics["subsets"]["c"]["auroc"]


def test_parameters_become_text_under_dotted_names() -> None:
    assert flat_params({"a": {"b": [1, 2], "c": None}, "d": 1e-4, "e": "text", "f": True}) == {
        "a.b": "[1, 2]",
        "a.c": "null",
        "d": "0.0001",
        "e": "text",
        "f": "true",
    }


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(project: Project) -> None:
    opened = store.open_store(project.root)
    opened.client.delete_experiment(opened.experiment_id)
    with pytest.raises(tracking.TrackingError, match="mlflow experiments restore --experiment-id 1"):
        tracking.publish(project.root)
