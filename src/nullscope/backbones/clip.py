"""The frozen CLIP of a run: a folder with ``open_clip_config.json``, ``open_clip_model.safetensors`` and its tokenizer.

open_clip builds both towers from that folder; nothing here touches the network. B images, D embedding width, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from nullscope.backbones.attention import split_attention

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
# Captions of one forward pass are at least so many; copies fill it up. With three or fewer the text tower rounded its sums
# otherwise (by 1.7e-6) than with the 256 of the stage `embed`; with four or more the features had the same bits.
LEAST_CAPTIONS = 8


@dataclass(frozen=True)
class ClipFacts:
    """What a detector has to know about a CLIP before it is built."""

    image_px: int  # side of the square input
    width: int  # D, of the joint embedding
    mean: tuple[float, float, float]  # per channel, of images on [0, 1]
    std: tuple[float, float, float]


def clip_facts(directory: Path) -> ClipFacts:
    """Read the facts of the CLIP in ``directory``. Raises `ValueError` if it is not such a folder or has another image tower."""
    config = _read_config(directory)
    model, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
    vision = model["vision_cfg"]
    if "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        raise ValueError(f"{directory}: expected open_clip's own vision transformer, found another image tower ({vision})")
    return ClipFacts(
        image_px=int(vision["image_size"]),
        width=int(model["embed_dim"]),
        mean=tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD)),
    )


def load_image_tower(directory: Path) -> nn.Module:
    """Return the frozen image tower, (B, 3, P, P) -> (B, D) not normalised, float32, its attention split into q, k, v, out."""
    tower = _load(directory).visual
    split_attention(tower)
    return tower.requires_grad_(False).eval()


def load_text_encoder(directory: Path, device: torch.device) -> Callable[[list[str]], Tensor]:
    """Return a function from captions to frozen text features, (N,) -> (N, D) float32 on the CPU, not normalised."""
    model = _load(directory).requires_grad_(False).eval().to(device)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{directory}")

    def encode(captions: list[str]) -> Tensor:
        more = captions[:1] * (LEAST_CAPTIONS - len(captions))
        with torch.inference_mode():
            return model.encode_text(tokenizer([*captions, *more]).to(device)).float().cpu()[: len(captions)]

    return encode


def _load(directory: Path) -> nn.Module:
    _read_config(directory)
    if not (Path(directory) / WEIGHTS_FILE).is_file():
        raise ValueError(f"{directory}: no {WEIGHTS_FILE}; run `dvc repro encoders`, or `dvc pull` if it was made elsewhere")
    return open_clip.create_model(f"local-dir:{directory}", precision="fp32", weights_only=True)


def _read_config(directory: Path) -> dict:
    try:
        config = json.loads((Path(directory) / CONFIG_FILE).read_text(encoding="utf-8"))
        config["model_cfg"]["vision_cfg"], config["model_cfg"]["embed_dim"]
    except OSError as error:
        raise ValueError(f"{directory}: no readable {CONFIG_FILE} ({error.strerror}); run `dvc repro encoders`") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{directory}/{CONFIG_FILE} is not an open_clip configuration: {error!r}") from None
    return config
