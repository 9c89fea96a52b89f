"""The pictures that train the embedded encoders: camera pictures of scenes no data set of the world ever contains.

Their seeds carry the names ``pretrain`` and ``held-out``, where a written world uses ``train`` and ``test``. No
generator is called here: the encoders must not have seen a generated picture.

Legend: N pictures, 128 x 128 px; M mosaics of 7 x 7 patches of 16 px, as the detectors see them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from nullscope.world import camera, degrade, scenes

SEED = 20260
BLIP_PX = 64
CLIP_PX = 112
PATCH_PX = 16
MOSAIC_SIDE = CLIP_PX // PATCH_PX
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, so that code written for real towers fits
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Pictures:
    """``degraded`` (N, 128, 128, 3) and ``small`` (N, 64, 64, 3, not degraded) uint8; ``amounts`` (N, 4) float32 and
    ``resampling`` (N,) int64 say what was done; one caption per picture."""

    degraded: NDArray[np.uint8]
    small: NDArray[np.uint8]
    amounts: NDArray[np.float32]
    resampling: NDArray[np.int64]
    captions: list[str]


def render(split: str, count: int) -> Pictures:
    """Return the first ``count`` pictures of ``split``, ``pretrain`` or ``held-out``."""
    made = [_picture(split, number) for number in tqdm(range(count), desc=f"render {split}", mininterval=10)]
    degraded, small, amounts, resampling, captions = zip(*made, strict=True)
    return Pictures(np.stack(degraded), np.stack(small), np.stack(amounts), np.array(resampling), list(captions))


def _picture(split: str, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], int, str]:
    rng = np.random.default_rng([SEED, zlib.crc32(split.encode()), number])
    scene = scenes.draw(rng)
    picture = camera.to_uint8(camera.photograph(scenes.paint(scene, rng), rng))
    degradation = degrade.draw(rng)
    degraded = degrade.apply(degradation, picture, rng)
    small = Image.fromarray(picture).resize((BLIP_PX, BLIP_PX), Image.Resampling.BICUBIC)
    kind = degrade.RESAMPLING.index(degradation.resampling)
    return degraded, np.asarray(small), degradation.amounts, kind, scene.caption


def crops(pictures_NHWC: NDArray[np.uint8], offset_px: tuple[int, int]) -> Tensor:
    """Return (N, 3, 112, 112) cuts at ``offset_px``, normalised. Multiples of 8 keep the grid of JPEG and of tokens."""
    top, left = offset_px
    return normalise(pictures_NHWC[:, top : top + CLIP_PX, left : left + CLIP_PX])


def mosaics(pictures_NHWC: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Return (M, 3, 112, 112) mosaics of 49 of each picture's 64 patches in random order, normalised."""
    count, side = len(pictures_NHWC), pictures_NHWC.shape[1] // PATCH_PX
    patches = pictures_NHWC.reshape(count, side, PATCH_PX, side, PATCH_PX, 3).swapaxes(2, 3)
    patches = patches.reshape(count, side * side, PATCH_PX, PATCH_PX, 3)
    order = rng.permuted(np.tile(np.arange(side * side), (count, 1)), axis=1)[:, : MOSAIC_SIDE**2]
    chosen = patches[np.arange(count)[:, None], order]
    tiled = chosen.reshape(count, MOSAIC_SIDE, MOSAIC_SIDE, PATCH_PX, PATCH_PX, 3).swapaxes(2, 3)
    return normalise(tiled.reshape(count, CLIP_PX, CLIP_PX, 3))


def normalise(pictures_NHWC: NDArray[np.uint8]) -> Tensor:
    """Return uint8 pictures as (N, 3, H, W) float32 with OpenAI CLIP's mean and deviation taken out."""
    mean, std = (np.array(values, np.float32) * 255 for values in (CLIP_MEAN, CLIP_STD))
    return torch.from_numpy((pictures_NHWC - mean) / std).permute(0, 3, 1, 2).contiguous()
