"""From the uint8 images of a batch to what a tower sees, on the tower's device."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def flip_where(image_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Flip left and right the images that ``flip_B`` (B,) bool names; any shape (B, C, H, W) and dtype."""
    return torch.where(flip_B[:, None, None, None], image_BCHW.flip(3), image_BCHW)


def normalise(image_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (B, 3, H, W) uint8 as float32, on [0, 1] less the channel's mean, over its deviation."""
    mean_C = torch.tensor(mean, device=image_BCHW.device)[:, None, None]
    std_C = torch.tensor(std, device=image_BCHW.device)[:, None, None]
    return (image_BCHW.float() / 255 - mean_C) / std_C
