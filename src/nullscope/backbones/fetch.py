"""Where the frozen towers come from: the package, a folder, or a hub repository at a pinned revision.

After this nothing touches the network, and nothing is unpickled: CLIP is read from safetensors, and BLIP, whose repository
holds a pickle only, is loaded by torch with ``weights_only=True`` and written as safetensors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

from pydantic import PositiveInt

from nullscope.core.config import Params
from nullscope.core.files import replacing_directory, write_json
from nullscope.core.workspace import typed

EMBEDDED = "embedded"
SOURCE_FILE = "source.json"


class ClipSource(Params):
    """``repository``: ``embedded``, a folder that holds an open_clip model, or a hub repository such as ``timm/...openai``."""

    repository: str
    revision: str  # commit of the hub repository
    architecture: str  # open_clip's name of the model, for a hub repository


class BlipSource(Params):
    """``repository``: ``embedded``, a folder that holds a transformers BLIP, or a hub repository."""

    repository: str
    revision: str


class Prompts(Params):
    """What stands before a training caption, by the label of its image: two words that the text encoder tells apart."""

    real: str
    fake: str


class EncoderParams(Params):
    """The frozen encoders of a run."""

    name: str
    patch_px: PositiveInt  # side of a patch, so that a mosaic has the size CLIP expects; the stage `shard` reads it
    clip: ClipSource
    blip: BlipSource
    convnext: ClipSource | None  # the CLIP ConvNeXt of AIDE; None: without
    prompts: Prompts  # of detectors that learn from captions which say the label
    # network -> the weights that its training begins with: torchvision's name of them, or a safetensors file
    initial: dict[str, str]


def fetch_clip(source: ClipSource, out: Path) -> None:
    """Write the CLIP of ``source`` to the folder ``out``. Raises `ValueError` saying what could not be had and what to do."""
    with replacing_directory(out) as partial:
        if not _copied(source.repository, "clip", partial):
            config = _clip_config(source)
            weights = _download(source.repository, "open_clip_model.safetensors", source.revision)
            shutil.copyfile(weights, partial / "open_clip_model.safetensors")
            write_json(partial / "open_clip_config.json", config)
        write_json(partial / SOURCE_FILE, source.model_dump())


def fetch_convnext(source: ClipSource | None, out: Path) -> None:
    """Write the CLIP ConvNeXt of ``source`` to the folder ``out``; an empty one for None. Raises as `fetch_clip`."""
    if source is None:
        with replacing_directory(out) as partial:
            write_json(partial / SOURCE_FILE, {})
    else:
        fetch_clip(source, out)


def fetch_blip(source: BlipSource, out: Path) -> None:
    """Write the BLIP of ``source`` to the folder ``out``. Raises `ValueError` saying what could not be had and what to do."""
    with replacing_directory(out) as partial:
        if not _copied(source.repository, "blip", partial):
            _save_blip(source, partial)
        write_json(partial / SOURCE_FILE, source.model_dump())


def fetch_initial(sources: Mapping[str, str], out: Path) -> None:
    """Write the weights that networks begin with to the folder ``out``, as ``<network>.safetensors``, in torchvision's names.

    torchvision's files are checked against the hash in their names. Raises `ValueError` saying what could not be had.
    """
    with replacing_directory(out) as partial:
        for network, source in sources.items():
            if (file := typed(source)).is_file():
                shutil.copyfile(file, partial / f"{network}.safetensors")
            else:
                _save_torchvision(source, partial / f"{network}.safetensors")
        write_json(partial / SOURCE_FILE, dict(sources))


def _save_torchvision(name: str, out: Path) -> None:
    from safetensors.torch import save_file
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # an unknown name, another hash, or a dozen kinds of a connection that fails
        raise ValueError(
            f"encoder.initial: {name!r} could not be had ({type(error).__name__}: {' '.join(str(error).split())[:160]}); "
            "expected torchvision's name of weights, such as ResNet50_Weights.IMAGENET1K_V1, or a safetensors file"
        ) from error
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, out)


def source_name(directory: Path) -> str:
    """Return ``repository@revision`` of an encoder folder, for the metadata of what was made with it."""
    source = json.loads((Path(directory) / SOURCE_FILE).read_text(encoding="utf-8"))
    return f"{source['repository']}@{source['revision']}"


def _copied(repository: str, kind: str, out: Path) -> bool:
    """Copy the embedded encoder or a folder of the user's; False where ``repository`` is neither."""
    if repository == EMBEDDED:
        with as_file(files("nullscope") / "assets" / kind) as assets:
            shutil.copytree(assets, out, dirs_exist_ok=True)
        return True
    if (folder := typed(repository)).is_dir():
        shutil.copytree(folder, out, dirs_exist_ok=True)
        return True
    return False


def _clip_config(source: ClipSource) -> dict:
    import open_clip

    model = open_clip.get_model_config(source.architecture)
    if model is None:
        raise ValueError(f"encoder.clip.architecture {source.architecture!r} is unknown; see open_clip.list_models()")
    known = _known(source.repository)
    # Weights that were trained with QuickGELU, such as OpenAI's: under the plain name open_clip only warns and computes something
    # else.
    if (known.get("quick_gelu") or "openai" in source.repository) and not model.get("quick_gelu"):
        raise ValueError(
            f"encoder.clip: {source.repository} needs QuickGELU, and {source.architecture!r} has none; "
            f"use {source.architecture + '-quickgelu'!r}"
        )
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    return {"model_cfg": model, "preprocess_cfg": {key: known.get(key, value) for key, value in statistics.items()}}


def _known(repository: str) -> dict:
    """Return what open_clip knows of the weights of a repository, such as what images are normalised with; nothing of others."""
    import open_clip

    known = (open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained())
    return next((facts for facts in known if facts.get("hf_hub", "").strip("/") == repository), {})


def _download(repository: str, file: str, revision: str) -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        return cached
    try:
        size = get_hf_file_metadata(hf_hub_url(repository, file, revision=revision)).size
        print(f"encoders: {repository}/{file}: a download of {(size or 0) / 1e9:.2f} GB", flush=True)
        return hf_hub_download(repository, file, revision=revision)
    except Exception as error:  # the hub client has a dozen kinds, from a bad name to a broken connection
        raise ValueError(_unreachable(repository, revision, error)) from error


def _save_blip(source: BlipSource, out: Path) -> None:
    from transformers import AutoTokenizer, BlipForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    try:
        for kind in (BlipForConditionalGeneration, AutoTokenizer, BlipImageProcessorPil):
            kind.from_pretrained(source.repository, revision=source.revision).save_pretrained(out)
    except OSError as error:
        raise ValueError(_unreachable(source.repository, source.revision, error)) from error


def _unreachable(repository: str, revision: str, error: Exception) -> str:
    return (
        f"{repository}@{revision} could not be fetched ({type(error).__name__}: {str(error).splitlines()[0]}); expected a hub "
        "repository that can be reached, or a folder with the model: name the folder in `encoder.clip.repository` or "
        "`encoder.blip.repository`, or use the encoders of the package with `dvc exp run -S encoder=embedded`"
    )
