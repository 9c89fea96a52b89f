"""Attention between channels within windows, as DFFreq weighs sub-bands and phases (AIGIBench: DFFreq-main/networks/FreqLC.py).

B images, C channels, H and W, w side of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WindowChannelAttention(nn.Module):
    """Each window mixes its channels by how alike they are in it, (B, C, H, W) to (B, C, H, W).

    In a window, with q, k, v (C, w^2) from a convolution of 1 x 1 and one of 3 x 3 per channel:

        y = softmax(t q k^T) v * g(v),   g(v) = GELU(A v + a) along the window

    and a convolution of 1 x 1 at the end. A map that fills no whole number of windows is mirrored at its end.
    """

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.temperature = nn.Parameter(torch.full((1, 1, 1), channels**-0.5))
        self.mlp = nn.Sequential(nn.Linear(window**2, window**2), nn.GELU())
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed map."""
        height, width = x.shape[2:]
        qkv = F.pad(self.qkv_dwconv(self.qkv(x)), (0, -width % self.window, 0, -height % self.window), mode="reflect")
        query, key, value = self._windows(qkv).chunk(3, dim=3)
        weights = (query @ key.transpose(3, 4) * self.temperature).softmax(4)
        mixed = self._joined(weights @ value * self.mlp(value))
        return self.project_out(mixed[:, :, :height, :width])

    def _windows(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / w, W / w, C, w^2)."""
        x = x.unflatten(3, (-1, self.window)).unflatten(2, (-1, self.window))  # B C h w W w
        return x.permute(0, 2, 4, 1, 3, 5).flatten(4)

    def _joined(self, windows: Tensor) -> Tensor:
        """The way back."""
        x = windows.unflatten(4, (self.window, self.window))  # B h W C w w
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
