"""A trained detector as MLflow serves it: the scores of `nullscope predict`, to the last digit."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from e2e.project import run

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


def version_of(root: Path, name: str) -> str:
    """The version of the registered model that is the model of a run."""
    script = (
        "import mlflow; from nullscope import tracking; c = mlflow.MlflowClient(tracking.tracking_uri())\n"
        "names = {v.version: c.get_run(v.run_id).info.run_name for v in c.search_model_versions(\"name = 'nullscope-world'\")}\n"
        f"print('version', next(version for version, name in names.items() if name == '{name}'))"
    )
    return run(root, "python", "-c", script).split()[-1]
