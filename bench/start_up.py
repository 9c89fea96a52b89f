"""Seconds until something happens: `nullscope --help`, the first image of `nullscope predict`, the first line of a stage.

The naive counterpart is a command that imports at its top all that any of its commands needs. CPU time of the processes, so that
neighbours do not count; the files are in the system's cache. Below the table: what the imports of `nullscope predict` cost.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import cpu_seconds, median_seconds, publish
from samples import patches_of, world_pictures, write_clip

from nullscope import detectors, model_folder
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context
from nullscope.model_facts import ModelFacts

ROOT = Path(__file__).parents[1]
NULLSCOPE = [sys.executable, "-c", "from nullscope.cli import main; main()"]
EAGER = [sys.executable, "-c", "import nullscope.prediction, nullscope.captioning, nullscope.report.build; import nullscope.cli"]
CULPRITS = ("torch", "peft", "transformers", "open_clip", "torchvision", "webdataset", "pyarrow", "PIL", "numpy", "pydantic")


def write_model(folder: Path) -> Path:
    """Write the folder of an untrained detector on the embedded encoders."""
    clip = write_clip("embedded", folder / "clip")
    params, patches = section_of(read_params(), "detectors.ns_net"), patches_of("embedded")
    detector = detectors.build("ns_net", params, Context({"clip": clip}, patches), seed=0)
    facts = ModelFacts(detector="ns_net", seed=0, params=params, patches=patches.model_dump(), max_pixels=10**8, caption={})
    model_folder.save(folder / "model", detector, facts, {"clip": clip})
    return folder / "model"


def run(command: list[str], folder: Path, status: int = 0) -> Callable[[], None]:
    """Return an act that runs a command to its end. Raises `ValueError` if it ends with another status."""

    def act() -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != status or not done.stdout + done.stderr:
            raise ValueError(f"{command}: status {done.returncode}\n{done.stderr}")

    return act


def import_seconds(module: str) -> dict[str, float]:
    """Return the seconds that importing each of `CULPRITS` takes on the way to ``module``, with what each imports first."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {name: int(us) / 1e6 for us, name in re.findall(r"\|\s+(\d+) \| +([\w.]+)$", done.stderr, re.MULTILINE)}
    return dict(sorted(((name, found[name]) for name in CULPRITS if name in found), key=lambda pair: -pair[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of interleaved timing (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        model, image = write_model(folder), world_pictures(folder / "images", 4)[0].source
        each = {
            "python": run([sys.executable, "-c", "print()"], folder),
            "nullscope --help": run([*NULLSCOPE, "--help"], folder),
            "--help, everything imported": run([*EAGER[:2], f"{EAGER[2]}; nullscope.cli.main(['--help'])"], folder),
            "import torch": run([sys.executable, "-c", "import torch; print()"], folder),
            "nullscope predict, one image": run([*NULLSCOPE, "predict", str(image), "--model", str(model)], folder),
            # Without parameters a stage ends with its first line: what it needs is not there.
            "first line of the stage caption": run([sys.executable, str(ROOT / "stages/caption.py")], folder / "empty", 1),
            "first line of the stage score": run([sys.executable, str(ROOT / "stages/score.py"), "x-0"], folder / "empty", 1),
        }
        seconds = median_seconds(each, rounds=options.rounds, clock=cpu_seconds)
    rows = [{"until": what, "CPU s": value} for what, value in seconds.items()]
    imports = {what: round(value, 2) for what, value in import_seconds("nullscope.prediction").items()}
    publish("start_up", rows, rounds=options.rounds, clock="CPU time of the processes", import_wall_seconds=imports)
    print("imports of nullscope.prediction, wall seconds, each with what it imports first:", imports)


if __name__ == "__main__":
    main()
