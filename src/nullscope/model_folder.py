"""Trained detectors on disk: writing and reading their folders, weights included. `model_facts` says what such a folder holds.

Frozen backbones are hard links where the file system has them. DVC's cache stores equal files once, so that sixteen detectors on
ViT-L/14 cost one copy of it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nullscope import detectors
from nullscope.core.config import validate
from nullscope.core.files import link_or_copy, replacing_directory
from nullscope.detectors.base import Context, Detector
from nullscope.model_facts import (
    AGAIN,
    HISTORY,
    WEIGHTS,
    ModelFacts,
    Validation,
    check_backbones,
    file_facts,
    one_line,
    read_facts,
    write_facts,
    write_validation,
)
from nullscope.ops.patches import PatchParams

SHOWN = 4  # names of tensors in an error
CAPTION_BACKBONES = ("blip", "clip")  # what writes the caption of a test image, and what encodes it


def save(
    directory: Path,
    detector: Detector,
    facts: ModelFacts,
    folders: Mapping[str, Path],
    history: Iterable[dict[str, Any]] | None = None,
    validation: Validation | None = None,
) -> None:
    """Write the folder of a trained detector, whole or not at all.

    ``folders`` are those of the frozen backbones by name; the ones that the detector needs are linked, and their hashes written
    to ``facts``. ``history`` has a row per step of the training; None, for weights that were not trained here, writes no file;
    ``validation`` likewise.
    Raises `ValueError` if the detector's adapters were merged (there is nothing left of them to write), a weight is no number, or
    a folder is lacking.
    """
    names = _needed(detector)
    lacking = [name for name in names if name not in folders]
    if lacking:
        raise ValueError(f"{facts.detector} needs the backbones {', '.join(lacking)}; found {', '.join(folders) or 'none'}")
    with replacing_directory(directory) as partial:
        for name in names:
            (partial / name).mkdir()
            for file in sorted(folders[name].iterdir()):
                link_or_copy(file, partial / name / file.name)
        weights = kept(detector)
        check_numbers(weights)
        hashes = {name: file_facts(partial / name) for name in names}
        write_facts(partial, facts.model_copy(update={"backbones": hashes}))
        save_file(weights, partial / WEIGHTS)
        if history is not None:
            _write_history(partial / HISTORY, list(history))
        if validation is not None:
            write_validation(partial, validation)


def load(directory: Path, device: torch.device, *, verify: bool = False) -> tuple[Detector, ModelFacts]:
    """Return a trained detector, ready to score on ``device``, its adapters merged.

    Every door loads this way: the stage `score`, the command, Python. ``verify`` also compares the hashes of large backbones.
    Raises `ValueError` if the folder is no such thing, or is damaged.
    """
    detector, facts = load_unmerged(directory, verify=verify)
    detector.merge()
    return detector.eval().to(device), facts


def load_unmerged(directory: Path, *, verify: bool = False) -> tuple[Detector, ModelFacts]:
    """Return a trained detector as training left it, on the CPU. Raises as `load`."""
    directory = Path(directory)
    facts = read_facts(directory)
    try:
        if not (directory / WEIGHTS).is_file():
            raise FileNotFoundError("no such file")
        weights = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError, MemoryError) as error:
        raise ValueError(f"{directory / WEIGHTS} cannot be read ({error}): it is missing or cut off; {AGAIN}") from None
    check_backbones(directory, facts, verify=verify)
    try:
        context = Context({name: directory / name for name in facts.backbones}, patches_of(facts))
        detector = detectors.build(facts.detector, facts.params, context, seed=facts.seed)
    except (ValueError, RuntimeError, MemoryError) as error:  # RuntimeError: parameters that ask for more memory than there is
        raise ValueError(f"{directory}: {one_line(error)}; {AGAIN}") from None
    lacking = [name for name in _needed(detector) if name not in facts.backbones]
    if lacking:
        raise ValueError(f"{directory}: {facts.detector} needs the backbones {', '.join(lacking)}, the folder has none; {AGAIN}")
    try:
        restore(detector, weights)
        check_numbers(weights)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}; {AGAIN}") from None
    return detector, facts


def patches_of(facts: ModelFacts) -> PatchParams:
    """Return how the mosaics of a model's images are made."""
    return validate("patches", facts.patches, PatchParams)


def _needed(detector: Detector) -> list[str]:
    """Return the names of the frozen backbones that a detector's folder holds."""
    return sorted({*detector.backbones, *(CAPTION_BACKBONES if detector.captions_at_inference else ())})


def kept(detector: Detector) -> dict[str, Tensor]:
    """Return what training added to the frozen backbones, on the CPU and in the order of the names.

    Raises `ValueError` if its adapters were merged.
    """
    if any(getattr(module, "merged", False) for module in detector.modules()):
        raise ValueError("this detector's adapters were merged for inference; save one that was loaded with `load_unmerged`")
    return dict(sorted(detached(dict(detector.kept_state())).items()))


def check_numbers(weights: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` if a weight is no number: every logit would be none either."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: {int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} weights are no numbers")


def detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors wants them: on the CPU, contiguous, without a graph."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def restore(detector: Detector, weights: dict[str, Tensor]) -> None:
    """Put `kept` weights back. Buffers may be wider than in a fresh detector (a basis has a column per direction).

    Raises `ValueError` unless names, shapes and dtypes are those of the detector.
    """
    current = dict(detector.kept_state())
    if current.keys() != weights.keys():
        difference = sorted(current.keys() ^ weights.keys())
        more = f" and {len(difference) - SHOWN} more" if len(difference) > SHOWN else ""
        raise ValueError(f"weights do not fit the detector: expected and found differ in {', '.join(difference[:SHOWN])}{more}")
    for name, tensor in weights.items():
        is_parameter, expected = isinstance(current[name], torch.nn.Parameter), current[name].shape
        if expected != tensor.shape and (is_parameter or expected[:-1] != tensor.shape[:-1] or len(expected) < 2):
            raise ValueError(f"{name}: expected the shape {tuple(expected)}, found {tuple(tensor.shape)}")
        if current[name].dtype != tensor.dtype:
            raise ValueError(f"{name}: expected {current[name].dtype}, found {tensor.dtype}")
        if is_parameter:
            with torch.no_grad():
                current[name].copy_(tensor)
        else:
            owner, _, attribute = name.rpartition(".")
            # A copy, for the file's tensors lie at any address, and a product with one row rounds otherwise at another alignment.
            setattr(detector.get_submodule(owner), attribute, tensor.clone().to(current[name].device))


def _write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
