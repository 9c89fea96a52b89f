"""A trained detector as MLflow serves it: the scores of `nullscope predict`, to the last digit."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from e2e.project import run
from servers import free_port, wait_for

pytestmark = pytest.mark.e2e


def test_mlflow_predicts_what_the_command_predicts(clone, tmp_path):
    """From the registry by name and version, through JSON, in a process of its own; one that is no image has its reason."""
    assert "Registered as nullscope-world: " in run(clone, "python", "stages/track.py")
    images = sorted((clone / "data/world/test").rglob("*.png"))[::5][:3]
    printed = run(clone, "nullscope", "predict", *map(str, images), "--model", "models/ns_net-0", "--csv")
    expected = [line.split(",")[1] for line in printed.splitlines() if line.startswith(str(clone))]
    files = [*(image.read_bytes() for image in images), b"no image"]
    rows = {"columns": ["image"], "data": [[base64.b64encode(data).decode()] for data in files]}
    (tmp_path / "in.json").write_text(json.dumps({"dataframe_split": rows}))
    uri = f"sqlite:///{clone / 'mlflow.db'}"
    run(
        *(clone, "mlflow", "models", "predict", "-m", f"models:/nullscope-world/{version_of(clone, 'ns_net-0')}", "-t", "json"),
        *("-i", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json"), "--env-manager", "local"),
        MLFLOW_TRACKING_URI=uri,
        PYTHONPATH="",
    )
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert [repr(row["logit"]) for row in found[:-1]] == expected and len(expected) == 3
    assert found[-1]["logit"] is None and found[-1]["refused"].startswith("not an image")


@pytest.mark.servers
def test_mlflow_serves_what_the_command_predicts(clone, tmp_path, request):
    """Over HTTP, as docs/team_mlflow.md says; and by Ray, where it is installed."""
    if "servers" not in (request.config.getoption("-m") or ""):
        pytest.skip("with servers, only with -m servers")
    run(clone, "python", "stages/track.py")
    images = sorted((clone / "data/world/test").rglob("*.png"))[::5][:3]
    printed = run(clone, "nullscope", "predict", *map(str, images), "--model", "models/ns_net-0", "--csv")
    expected = [line.split(",")[1] for line in printed.splitlines() if line.startswith(str(clone))]
    model, store = f"models:/nullscope-world/{version_of(clone, 'ns_net-0')}", f"sqlite:///{clone / 'mlflow.db'}"
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", model, "--port", str(port), "--env-manager", "local"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(port, server, seconds=120)
        rows = {"columns": ["image"], "data": [[base64.b64encode(image.read_bytes()).decode()] for image in images]}
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_split": rows}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=120) as answer:
            found = json.load(answer)["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert [repr(row["logit"]) for row in found] == expected and len(expected) == 3

    pytest.importorskip("ray")
    (tmp_path / "pictures").mkdir()
    for image in images:
        shutil.copy(image, tmp_path / "pictures")
    script = str(ROOT / "docs/examples/judge_with_ray.py")
    more = {"MLFLOW_TRACKING_URI": store, "PROCESSES": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    run(clone, "python", script, model, str(tmp_path / "pictures/*"), str(tmp_path / "judged"), **more)
    judged = pq.read_table(tmp_path / "judged").to_pylist()
    assert {row["source"].rpartition("/")[2]: repr(row["logit"]) for row in judged} == {
        image.name: logit for image, logit in zip(images, expected, strict=True)
    }


def version_of(root: Path, name: str) -> str:
    """The version of the registered model that is the model of a run."""
    script = (
        "import mlflow; from nullscope import tracking; c = mlflow.MlflowClient(tracking.tracking_uri())\n"
        "names = {v.version: c.get_run(v.run_id).info.run_name for v in c.search_model_versions(\"name = 'nullscope-world'\")}\n"
        f"print('version', next(version for version, name in names.items() if name == '{name}'))"
    )
    return run(root, "python", "-c", script).split()[-1]
