"""What is left of an image when its neighbourhood has been taken away: traces of up-sampling and of a camera's mosaic.

B images, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Sobel's derivatives by their names in LaDeDa's code (barcavia/RealTime-DeepfakeDetection-in-the-RealWorld, networks/).
GRADIENTS = {
    "x_grad": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "y_grad": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "left_diag": ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
    "right_diag": ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
}


def neighbour_residual(image_BCHW: Tensor) -> Tensor:
    """Return each pixel less the top left one of its cell of 2 x 2 pixels, (B, C, H, W).

    This is the neighbouring pixel relationship of NPR: x - up(down(x)), both nearest neighbour, by a factor of 2. Of an odd side
    the last row or column is dropped, as NPR's README does before its network.
    """
    height, width = (side // 2 * 2 for side in image_BCHW.shape[2:])
    even = image_BCHW[:, :, :height, :width]
    return even - F.interpolate(even[:, :, ::2, ::2], scale_factor=2, mode="nearest")


def gradient(image_BCHW: Tensor, name: str) -> Tensor:
    """Return the derivative ``name`` of `GRADIENTS` of every channel, (B, C, H, W); beyond its border the image is 0."""
    channels = image_BCHW.shape[1]
    kernel = torch.tensor(GRADIENTS[name], dtype=image_BCHW.dtype).to(image_BCHW.device).expand(channels, 1, 3, 3)
    return F.conv2d(image_BCHW, kernel, padding=1, groups=channels)
