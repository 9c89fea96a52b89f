"""A copy of the project in which a small pipeline has run, and how its commands are run and its results are read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nullscope.core.contracts import CLEAN

# Three detectors stand for all, so that the time does not grow with their number: one that reads no captions, one that reads
# those of the training, one that trains in two phases. What holds for every detector is tested in tests/detectors.
DETECTORS = ["linear_probe", "ns_net", "dgs_net"]
KILLED = "ns_net"  # the detector whose training test_kill kills: it has more steps than the others
KILLED_STEPS = {"epochs": 2, "batch_size": 8}
STEPS = {"linear_probe": 3, "ns_net": 24, "dgs_net": 6}  # of 96 training images
RUNS = {f"{name}-0" for name in DETECTORS}
MADE = ["data", "models", "scores", "reports", ".nullscope", ".dvc/cache"]


def one_epoch(*choice: str) -> dict[str, list[str]]:
    """Return settings that make every phase of every detector of a composition one epoch long, by detector."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        chosen = OmegaConf.to_container(compose("config", overrides=list(choice)).detectors)
    return {name: [f"detectors.{name}.{key}=1" for key in chosen[name] if key.endswith("epochs")] for name in chosen}


CHOICE = f"detectors=[{','.join(DETECTORS)}]"
SMALL = [
    CHOICE,
    "dataset.world.train_reals=48",
    "dataset.world.train_fakes_per_generator=24",
    "dataset.world.val_reals=16",
    "dataset.world.val_fakes_per_generator=8",
    "dataset.world.test_reals=24",
    "dataset.world.test_fakes_per_generator=6",
    "shard.samples=32",
    *(setting for name, settings in one_epoch(CHOICE).items() if name != KILLED for setting in settings),
    *(f"detectors.{KILLED}.{key}={value}" for key, value in KILLED_STEPS.items()),
]


def run(project: Path, *command: str, status: int = 0, **environment: str) -> str:
    """Run a command in the project; return what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NULLSCOPE_", "MLFLOW_", "DVC_", "GIT_"))}
    clean["PYTHONPATH"] = str(project / "src")
    who = {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        command,
        cwd=project,
        env={**clean, **quiet, **who, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def stages_run(output: str) -> list[str]:
    """Return the stages that DVC says it ran, in order."""
    return re.findall(r"Running stage '([^']+)'", output)


def overrides(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("-S", setting)]


def copy_project(to: Path) -> Path:
    """Copy what git would commit, and commit it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    run(to, "git", "init", "-q", "-b", "main")
    run(to, "git", "add", "-A")
    run(to, "git", "commit", "-qm", "copy")
    return to


def run_small_pipeline(root: Path) -> None:
    """Copy the project to ``root`` and run the small pipeline in it once, as a user does."""
    root.mkdir()
    copy_project(root)
    run(root, "dvc", "exp", "run", *overrides(*SMALL))
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "small")


def clean_logits(root: Path, name: str, *splits: str) -> dict[str, float]:
    """Return the logits of the stage `score` of the images of these splits as they are, by their id."""
    wanted = [("degradation", "=", CLEAN), ("split", "in", splits)]
    scores = pq.read_table(root / f"scores/{name}.parquet", filters=wanted)
    return dict(zip(scores["image_id"].to_pylist(), scores["logit"].to_pylist(), strict=True))
