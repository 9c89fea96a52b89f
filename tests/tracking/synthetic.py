"""A synthetic project: what the stages leave behind, in miniature. No torch."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from nullscope.tracking import store

if TYPE_CHECKING:
    from mlflow.entities import Run

DETECTORS = ("clip_lora", "ns_net")
STEPS = 30
VALIDATION = ("val_loss", "val_ap", "val_auroc")
SUBSETS = {"progan": 0.9, "sd v1.5 (img2img)": 0.6, "sd v1.5 [img2img]": 0.5, "a/../b": 0.4}  # names that MLflow refuses

LOCK = """schema: '2.0'
stages:
  index:
    cmd: python stages/index.py
    outs:
    - {path: data/index.parquet, hash: md5, md5: 0123456789abcdef0123456789abcdef, size: 9}
"""


class Project:
    """A project in a folder, with the two models trained and evaluated."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dvc.yaml").write_text("stages: {}\n")
        (root / "dvc.lock").write_text(LOCK)
        run = f"run:\n  detectors: [{', '.join(DETECTORS)}]\n  seeds: [0]\n  official: []\n"
        (root / "params.yaml").write_text(f"dataset:\n  name: world\n{run}")
        for name in DETECTORS:
            self.train(name)
            self.evaluate(name)
        (root / "reports" / "figures").mkdir(parents=True)
        (root / "reports" / "index.html").write_text("<h1>report</h1>")
        (root / "reports" / "figures" / "roc.png").write_bytes(b"not really")

    def params(self) -> dict:
        return {"lr": 0.0001, "lora": {"rank": 6}, "note": "x" * 7000}

    def train(self, name: str, weights: bytes = b"weights", seed: int = 0) -> Path:
        folder = self.root / "models" / f"{name}-{seed}"
        (folder / "clip").mkdir(parents=True, exist_ok=True)
        (folder / "clip" / "model.safetensors").write_bytes(b"the frozen tower")
        (folder / "weights.safetensors").write_bytes(weights + f"{name}{seed or ''}".encode())
        facts = {"detector": name, "seed": seed, "format": 1, "params": self.params(), "patches": {"patch_px": 16}}
        (folder / "detector.json").write_text(json.dumps(facts))
        with open(folder / "history.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "epoch", "phase", "loss", "bce", "warm", *VALIDATION])
            rows.writerows(
                [
                    s,
                    s // 10,
                    "main",
                    loss(s),
                    loss(s),
                    loss(s) if s < 5 else "",
                    *(validation(s).get(name, "") for name in VALIDATION),
                ]
                for s in range(STEPS)
            )
        return folder

    def evaluate(self, name: str, acc: float = 0.75, **more: float) -> None:
        subsets = {subset: {"n_fake": 10, "f_acc": value, "ap": value / 2} for subset, value in SUBSETS.items()}
        degraded = {"jpeg_75": {"acc": 0.6, "subsets": subsets}}
        metrics = {"acc": acc, "ap": 0.8, **more, "subsets": subsets, "degradations": degraded}
        (self.root / "metrics").mkdir(exist_ok=True)
        (self.root / "metrics" / f"{name}-0.json").write_text(json.dumps(metrics))

    def runs(self) -> list[Run]:
        """Return the runs, the newest first."""
        opened = store.open_store(self.root)
        return list(opened.client.search_runs([opened.experiment_id]))

    def run(self, name: str) -> Run:
        (found,) = [run for run in self.runs() if run.info.run_name == f"{name}-0"]
        return found

    def points(self, name: str, metric: str) -> list[tuple[int, float]]:
        history = store.open_store(self.root).client.get_metric_history(self.run(name).info.run_id, metric)
        return [(point.step, point.value) for point in history]

    def artifacts(self, name: str) -> set[str]:
        folder = self.root / "mlartifacts" / self.run(name).info.run_id / "artifacts"
        return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def validation(step: int) -> dict[str, float]:
    """What is known of the validation split after a step: something at the last one of an epoch."""
    return {name: round(at / (step + 4), 6) for at, name in enumerate(VALIDATION, 1)} if step % 10 == 9 else {}


def loss(step: int) -> float:
    return round(math.exp(-step / 10), 6)
