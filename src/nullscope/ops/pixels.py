"""From the uint8 images of a batch to what a tower sees, on the tower's device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nullscope.ops.patches import permute_patches

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def laid_out(inputs: dict[str, Tensor]) -> Tensor:
    """Return ``image`` (B, C, H, W) of what a transform gives; the cells of a mosaic are laid out by its ``order`` (B, cells)."""
    image_BCHW = inputs["image"]
    if "order" not in inputs:
        return image_BCHW
    return permute_patches(image_BCHW, inputs["order"], grid=math.isqrt(inputs["order"].shape[1]))


def flip_where(image_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Flip left and right the images that ``flip_B`` (B,) bool names; any shape (B, C, H, W) and dtype."""
    return torch.where(flip_B[:, None, None, None], image_BCHW.flip(3), image_BCHW)


def normalise(image_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (B, 3, H, W) uint8 as float32, on [0, 1] less the channel's mean, over its deviation."""
    image_BCHW = image_BCHW.float()
    # Filled on the device: `torch.tensor` would copy the numbers there, and the host would wait for the steps that are queued.
    mean_C11, std_C11 = (torch.stack([image_BCHW.new_full((1, 1), number) for number in numbers]) for numbers in (mean, std))
    return (image_BCHW / 255 - mean_C11) / std_C11
