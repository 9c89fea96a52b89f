"""Trained detectors on disk: a folder that holds all that a prediction needs, and how the detector came about.

- ``detector.json``: name, seed, parameters, how mosaics are made, the sizes of the frozen encoders' files by SHA-256;
- ``weights.safetensors``: what training added to the frozen encoders;
- ``clip/``: the frozen CLIP, hard links where the file system has them. DVC's cache stores equal files once, so that sixteen
  detectors on ViT-L/14 cost one copy of it;
- ``blip/``: likewise, where a test image needs its caption, so that `nullscope predict` can write one;
- ``history.csv``: the losses of every step.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nullscope import detectors
from nullscope.core.config import validate
from nullscope.core.files import replacing_directory, write_json
from nullscope.detectors.base import Context, Detector
from nullscope.ops.patches import PatchParams

FORMAT = 3  # of the folder; another number is refused
FACTS, WEIGHTS, HISTORY, CLIP, BLIP = "detector.json", "weights.safetensors", "history.csv", "clip", "blip"

RETRAINED = "retrained"  # in this pipeline


@dataclass(frozen=True)
class Made:
    """How a detector came about: what is written beside its weights."""

    detector: str
    seed: int
    params: dict[str, Any]
    patches: PatchParams
    max_pixels: int  # images above it are refused
    caption: dict[str, Any]  # the parameters of BLIP, for a detector that needs captions at inference
    prepare: list[str] = field(default_factory=list)  # what was done to every image before (`data.degradations`)
    dataset: str = ""  # name of the data set it was trained on
    weights: str = RETRAINED  # or `official`: those that its authors released


@dataclass(frozen=True)
class Frozen:
    """The folders of the frozen encoders of a run."""

    clip: Path
    blip: Path


def save(directory: Path, detector: Detector, made: Made, frozen: Frozen, history: Iterable[dict[str, Any]]) -> None:
    """Write the folder of a trained detector, whole or not at all."""
    with replacing_directory(directory) as partial:
        facts = {**vars(made), "patches": made.patches.model_dump(), "format": FORMAT}
        write_json(partial / FACTS, facts)
        save_file(kept(detector), partial / WEIGHTS)
        _link_folder(frozen.clip, partial / CLIP)
        if detector.captions_at_inference:
            _link_folder(frozen.blip, partial / BLIP)
        _write_history(partial / HISTORY, list(history))


def load(directory: Path, device: torch.device) -> tuple[Detector, Made]:
    """Return a trained detector, ready to score on ``device``. Raises `ValueError` if the folder is no such thing."""
    directory = Path(directory)
    try:
        facts = json.loads((directory / FACTS).read_text(encoding="utf-8"))
        weights = load_file(directory / WEIGHTS)
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory} is not a trained detector ({error}); expected a folder such as models/ns_net-0") from None
    if facts.pop("format", None) != FORMAT:
        raise ValueError(f"{directory}: expected format {FORMAT}, found another; train it again with `dvc repro`")
    made = Made(**{**facts, "patches": validate("patches", facts["patches"], PatchParams)})
    context = Context({CLIP: directory / CLIP}, made.patches)
    detector = detectors.build(made.detector, made.params, context, seed=made.seed)
    restore(detector, weights)
    return detector.eval().to(device), made


def kept(detector: Detector) -> dict[str, Tensor]:
    """Return what training added to the frozen encoders, on the CPU and in the order of the names."""
    return dict(sorted(detached(dict(detector.kept_state())).items()))


def detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors wants them: on the CPU, contiguous, without a graph."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def restore(detector: Detector, weights: dict[str, Tensor]) -> None:
    """Put `kept` weights back. Buffers may have another shape than in a fresh detector (a basis); parameters may not.

    Raises `ValueError` unless the names are exactly those of the detector.
    """
    current = dict(detector.kept_state())
    if current.keys() != weights.keys():
        difference = sorted(current.keys() ^ weights.keys())
        raise ValueError(f"weights do not fit the detector: expected and found differ in {difference}")
    for name, tensor in weights.items():
        if isinstance(current[name], torch.nn.Parameter):
            with torch.no_grad():
                current[name].copy_(tensor)
        else:
            owner, _, attribute = name.rpartition(".")
            setattr(detector.get_submodule(owner), attribute, tensor.to(current[name].device))


def _write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def _link_folder(source: Path, out: Path) -> None:
    """Hard-link every file; copy where that cannot be done (another file system, or one without links)."""
    out.mkdir()
    for file in sorted(source.iterdir()):
        try:
            os.link(file.resolve(), out / file.name)
        except OSError:
            shutil.copyfile(file, out / file.name)
