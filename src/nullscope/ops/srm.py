"""The 30 high-pass kernels of steganalysis (Fridrich and Kodovsky 2012, "Rich Models for Steganalysis of Digital Images").

They predict a pixel from its neighbours and leave the error: content is gone, noise stays. Order and signs are those of AIDE
(shilinyan99/AIDE, models/srm_filter_kernel.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

COMPASS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # NW, N, NE, W, E, SW, S, SE: row, column
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # NW, N, NE, E, SE, S, SW, W
LINES = ((-1, -1), (-1, 0), (-1, 1), (0, -1))  # NW to SE, N to S, NE to SW, W to E
SQUARE_3 = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
OUTER, INNER = [-1.0, 2, -2, 2, -1], [2.0, -6, 8, -6, 2]
SQUARE_5 = torch.tensor([OUTER, INNER, [-2.0, 8, -12, 8, -2], INNER, OUTER]) / 12


def srm_kernels() -> Tensor:
    """Return the kernels, (30, 5, 5) float32: 8 of first order, 4 of second, 8 of third, 4 + 4 for edges, 2 squares."""
    first = [_kernel({step: 1}) for step in COMPASS]
    second = [_kernel({step: 1 / 2, _times(step, -1): 1 / 2}) for step in LINES]
    third = [_kernel({_times(step, 2): -1 / 3, step: 1, _times(step, -1): 1 / 3}) for step in AROUND]
    edges = [_without(square, side) for square in (SQUARE_3, SQUARE_5) for side in ("bottom", "left", "top", "right")]
    return torch.stack([*first, *second, *third, *edges, _padded(SQUARE_3), SQUARE_5])


def _kernel(weights: dict[tuple[int, int], float]) -> Tensor:
    """Return -1 in the centre and ``weights`` at their steps from it."""
    kernel = torch.zeros(5, 5)
    kernel[2, 2] = -1
    for (row, column), weight in weights.items():
        kernel[2 + row, 2 + column] = weight
    return kernel


def _times(step: tuple[int, int], factor: int) -> tuple[int, int]:
    return factor * step[0], factor * step[1]


def _without(square: Tensor, side: str) -> Tensor:
    """Return a square kernel without the lines on one side of its centre."""
    kernel, half = square.clone(), len(square) // 2
    lines = kernel if side in ("top", "bottom") else kernel.T
    if side in ("top", "left"):
        lines[:half] = 0
    else:
        lines[half + 1 :] = 0
    return _padded(kernel)


def _padded(kernel: Tensor) -> Tensor:
    border = (5 - len(kernel)) // 2
    return F.pad(kernel, (border,) * 4)
