"""A published checkpoint as a model folder: the command ``nullscope import-weights``.

A checkpoint is read without running anything in it (`torch.load` with ``weights_only``), and must have the tensors of its
detector, all of them and no others. Its SHA-256 is recorded, and compared with those of the known ones (`records`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from nullscope import detectors
from nullscope.backbones.published import differing
from nullscope.core.config import suggest
from nullscope.core.files import sha256
from nullscope.detectors.base import Context, Detector
from nullscope.model_facts import ModelFacts
from nullscope.model_folder import patches_of, restore, save
from nullscope.project import template
from nullscope.records.licences import Weights, known

WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network")  # keys under which a training wraps the tensors
PREFIX = "module."  # of every name, where torch's DataParallel has saved
SHOWN = 4  # names in an error


PRESETS = ("official", "aigibench")
PRESET_FOLDER = Path("conf/detectors")  # in a project
ENCODERS = Path("data/encoders")  # of the run: what the stage `encoders` wrote


def preset_config(detector: str, preset: str | None, changes: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the name of a detector's preset, and the configuration of the project composed with it.

    ``changes`` are parameters of the detector, such as ``residual=npr``. Raises `ValueError` if there is no such detector, preset
    or parameter, or if one is not named that no checkpoint of the detector records. Outside of a project the presets are those
    that came with the package.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    detectors.module_name(detector)
    folder = PRESET_FOLDER if PRESET_FOLDER.is_dir() else template() / PRESET_FOLDER
    for parameter, evidence in getattr(detectors.load(detector).Detector, "unrecorded", {}).items():
        if not any(change.startswith(f"{parameter}=") for change in changes):
            raise ValueError(f"{detector}: its checkpoints do not record {parameter}; name --param {parameter}=VALUE: {evidence}")
    there = [name for name in PRESETS if (folder / f"{detector}_{name}.yaml").is_file()]
    chosen = preset or (there[0] if there else None)
    if chosen not in there:
        raise ValueError(f"{detector} has no preset {chosen or 'of its authors'}{suggest(str(chosen), there)}")
    name = f"{detector}_{chosen}"
    overrides = [f"detectors=[{name}]", *(f"detectors.{name}.{change}" for change in changes)]
    try:
        with initialize_config_dir(str(folder.parent.resolve()), version_base=None):
            return name, OmegaConf.to_container(compose("config", overrides), resolve=True)
    except HydraException as error:
        raise ValueError(f"{', '.join(changes)}: {' '.join(str(error).split())[:200]}") from None


def folders_of(named: Sequence[str]) -> dict[str, Path]:
    """Return the folders of frozen networks by name: those of the run, and ``NAME=FOLDER`` in the place of one of them.

    Raises `ValueError` on words of another form, or where there is no such folder.
    """
    found = {folder.name: folder for folder in sorted(ENCODERS.glob("*")) if folder.is_dir()}
    for words in named:
        name, _, folder = words.partition("=")
        if not name or not folder:
            raise ValueError(f"--backbone {words}: expected NAME=FOLDER, such as clip=data/encoders/clip")
        if not Path(folder).is_dir():
            raise ValueError(f"--backbone {words}: no folder {folder}")
        found[name] = Path(folder)
    return found


class Imported(NamedTuple):
    """What was read from a checkpoint."""

    facts: ModelFacts
    unwrapped: list[str]  # the wrappers that were taken off, in words
    known: Weights | None  # what our records say of the file


def import_weights(file: Path, config: Mapping[str, Any], name: str, out: Path, backbones: Mapping[str, Path]) -> Imported:
    """Write the model folder ``out`` of the detector ``name`` of a composed configuration, with the weights of a checkpoint.

    ``config`` holds ``detectors.<name>``, ``patches``, ``caption`` and ``dataset.max_pixels``; ``backbones`` the folders of
    frozen networks by name. A frozen network that the checkpoint carries is compared with them, and not stored a second time.
    Raises `ValueError` that says what was expected and what was found, if the file is no checkpoint of that detector.
    """
    method = detectors.method_of(name, config["detectors"][name])
    if not hasattr(detectors.load(method).Detector, "official_name"):
        raise ValueError(f"{method}: its authors released no checkpoint that is read here")
    values, digest = _read(file), sha256(file)
    entry = known(digest)
    facts = ModelFacts(
        detector=name,
        seed=0,
        params=config["detectors"][name],
        patches=config["patches"],
        max_pixels=config["dataset"]["max_pixels"],
        caption=config["caption"],
        dataset=entry.trained_on if entry else "",
        weights="official",
        checkpoint=digest,
    )
    detector = detectors.build(name, facts.params, Context(backbones, patches_of(facts)), seed=0)
    tensors, unwrapped = _unwrapped(values, file)
    try:
        restore(detector, _renamed(detector.from_official(tensors), detector))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    save(out, detector, facts, backbones)
    return Imported(facts, unwrapped, entry)


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected a checkpoint, such as NPR.pth")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader brings anything out of a file that is no checkpoint
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        with open(file, "rb") as opened:
            head = opened.read(64)
        if head.startswith(b"version https://git-lfs"):
            why = "it is a pointer of git-lfs: fetch the file with `git lfs pull`"
        elif head.lstrip().lower().startswith((b"<!doctype", b"<html")):
            why = "it is a web page: the download was not the file"
        raise ValueError(f"{file} cannot be read as a checkpoint of tensors: {why}") from None


def _unwrapped(values: Any, file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint by their names, and what was taken off to reach them."""
    taken = []
    while isinstance(values, dict) and not all(isinstance(value, Tensor) for value in values.values()):
        key = next((key for key in WRAPPERS if isinstance(values.get(key), dict)), None)
        if key is None:
            found = ", ".join(map(str, list(values)[:SHOWN])) or "nothing"
            raise ValueError(f"{file}: expected tensors by name, or one of {', '.join(WRAPPERS)} with them; found {found}")
        taken.append(f"the key `{key}`")
        values = values[key]
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{file}: expected tensors by name, found {type(values).__name__} of {len(values or ())}")
    if all(name.startswith(PREFIX) for name in values):
        taken.append(f"the prefix `{PREFIX}`")
        values = {name.removeprefix(PREFIX): tensor for name, tensor in values.items()}
    return dict(values), taken


def _renamed(tensors: dict[str, Tensor], detector: Detector) -> dict[str, Tensor]:
    """Return the tensors under our names. Raises `ValueError` unless they are those of the detector and its backbones."""
    kept, frozen = dict(detector.kept_state()), detector.official_frozen()
    empty = {name: tensor for name, tensor in kept.items() if not tensor.numel()}  # a null space of nothing
    ours = {detector.official_name(name): name for name in kept if name not in empty}
    constant = re.compile(detector.official_constants)
    there = {name for name in tensors if not constant.fullmatch(name)}
    missing, unknown = sorted(ours.keys() - there), sorted(there - ours.keys() - frozen.keys())
    if frozen.keys() & there:
        missing += sorted(frozen.keys() - there)
    if missing or unknown:
        raise ValueError(
            f"no checkpoint of {type(detector).__module__.rpartition('.')[2]}: of its {len(ours)} tensors "
            f"{len(missing)} are missing ({_listed(missing)}), and {len(unknown)} others are there ({_listed(unknown)})"
        )
    if other := list(differing(tensors, frozen)):
        raise ValueError(
            f"{len(other)} of the {len(frozen)} frozen tensors that it carries are not those of the backbone ({_listed(other)}); "
            "name the network that it was trained on: --backbone NAME=FOLDER"
        )
    return empty | {ours[name]: tensors[name] for name in ours}


def _listed(names: list[str]) -> str:
    return (", ".join(names[:SHOWN]) or "none") + (", ..." if len(names) > SHOWN else "")
