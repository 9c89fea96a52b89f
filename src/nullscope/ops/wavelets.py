"""Wavelets that detectors on pixels read: Haar's, and the diagonal band of bior1.3, both of one level.

Bands are named as in PyWavelets: LL, LH (horizontal edges), HL (vertical edges), HH (diagonals). B images, C channels, H and W
pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def haar(image_BCHW: Tensor) -> Tensor:
    """Return the bands LL, LH, HL, HH, (B, C, 4, H/2, W/2), of images with even sides."""
    a, b = image_BCHW[..., ::2, ::2], image_BCHW[..., ::2, 1::2]
    c, d = image_BCHW[..., 1::2, ::2], image_BCHW[..., 1::2, 1::2]
    return torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], dim=2) / 2


def inverse_haar(bands_BC4HW: Tensor) -> Tensor:
    """Return the images, (B, C, 2H, 2W), of the bands that `haar` returns."""
    ll, lh, hl, hh = bands_BC4HW.unbind(2)
    top = torch.stack([ll + lh + hl + hh, ll + lh - hl - hh], dim=-1).flatten(-2)
    bottom = torch.stack([ll - lh + hl - hh, ll - lh - hl + hh], dim=-1).flatten(-2)
    return torch.stack([top, bottom], dim=-2).flatten(-3, -2) / 2


def diagonal_band(image_BCHW: Tensor) -> Tensor:
    """Return the band HH of bior1.3 with symmetric extension, (B, C, (H + 5) // 2, (W + 5) // 2).

    The high-pass filter of bior1.3 has two taps that are not zero, as Haar's has. So the band is Haar's diagonal of the image
    that goes on symmetrically: two pixels to the left and above, two or three to the right and below.
    """
    rows, columns = (_extended(size, image_BCHW.device) for size in image_BCHW.shape[2:])
    image_BCHW = image_BCHW[:, :, rows[:, None], columns]
    left, right = image_BCHW[..., ::2], image_BCHW[..., 1::2]
    difference = left - right
    return (difference[..., ::2, :] - difference[..., 1::2, :]) / 2


def _extended(size: int, device: torch.device) -> Tensor:
    """Return the indices of an axis that goes on symmetrically: ..., 1, 0, 0, 1, ..., size - 1, size - 1, ..."""
    index = torch.arange(-2, (size + 5) // 2 * 2 - 2, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)
