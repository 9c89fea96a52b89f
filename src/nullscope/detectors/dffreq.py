"""DFFreq (AIGIBench's name; Yan et al. 2025, "Dual Frequency Branch Framework with Reconstructed Sliding Windows Attention").

Two branches weigh the image anew before a small ResNet sees it: attention between colours within cells of Haar's sub-bands, and
within windows of the phase of its spectrum.

    b = Haar(x)                              4 sub-bands, regrouped: (B, 3, 4, H W / 4), 2 x 2 neighbours of a band side by side
    x1 = Haar^-1(b + A1(LayerNorm(b)))       (B, 3, H, W)    A1: windows of 4 x 4: one cell in its 4 sub-bands
    x2 = s F^-1(|F(x)| exp(j A2(arg F(x))))  (B, 3, H, W)    A2: windows of 8 x 8; s a number, 0 at the start
    f = mean over pixels of R(0.6 x1 + 0.4 x2)       (B, 512)
    logit = w f + b                          (B,)

A: `WindowChannelAttention`; R: a stem of 3 x 3 and the first two stages of ResNet-50; x normalised. The LayerNorm is over the
three colours.

*Input.* No resizing: a random window of 256 in training, the central one in testing, what a smaller image lacks is black. The
published code fails on smaller training images. ``input: patches`` takes mosaics of selected patches (NS-Net's table 8).

*Recipe.* Adam at 1e-4, no weight decay, 128 images a step, 101 epochs, the rate times 0.9 after every 10. From random weights.

*Presets.* ``dffreq_aigibench``, the only published code. ``dffreq`` alone is a narrow network for the embedded world.

*Not copied.* The test loop drops the last images of a folder that fill no batch. Haar's filters stand twice among the published
weights; they are constants.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, fft, nn

from nullscope.backbones.pixels import PixelEncoder
from nullscope.backbones.resnet import TruncatedResNet
from nullscope.detectors import base, pixels
from nullscope.ops.channel_attention import WindowChannelAttention
from nullscope.ops.wavelets import haar, inverse_haar

SHARES = (0.6, 0.4)  # of the two branches


class Config(pixels.CropOrPatches, base.SteppedParams):
    """Parameters of DFFreq."""


class FrequencyBranches(nn.Module):
    """The image weighed anew, (B, 3, H, W) to (B, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.bands = WindowChannelAttention(3, window=4)
        self.phase = WindowChannelAttention(3, window=8)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return both branches' sum."""
        cells = _cells(haar(x))
        normal = self.norm(cells.movedim(1, 3)).movedim(3, 1)
        of_bands = inverse_haar(_uncelled(cells + self.bands(normal), x.shape[3] // 4))
        spectrum = fft.rfft2(x)
        turned = torch.polar(spectrum.abs(), self.phase(spectrum.angle()))
        of_phase = fft.irfft2(turned, s=x.shape[2:])
        return SHARES[0] * of_bands + SHARES[1] * (of_phase * self.scale)


def _cells(bands_BC4HW: Tensor) -> Tensor:
    """(B, C, 4, h, w) -> (B, C, 4, h w), the pixels of a cell of 2 x 2 behind one another."""
    return bands_BC4HW.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).transpose(4, 5).flatten(3)


def _uncelled(cells_BC4N: Tensor, columns: int) -> Tensor:
    """The way back; ``columns`` of cells."""
    return cells_BC4N.unflatten(3, (-1, columns, 2, 2)).transpose(4, 5).flatten(5).flatten(3, 4)


class Network(nn.Module):
    """The branches and the truncated ResNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches, self.trunk = FrequencyBranches(), TruncatedResNet(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 8 * width)."""
        return self.trunk(self.branches(x))


class Detector(pixels.PixelDetector):
    """DFFreq."""

    official_head = "fc1"
    official_constants = r"(FreqLCBlock\.)?i?dwt_transform\..*"

    def __init__(self, params: Config, context: base.Context) -> None:
        transform = params.transform(context.patches)
        super().__init__(params, transform, PixelEncoder(Network(params.width)), 8 * params.width)

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return the published name: the branches are ``FreqLCBlock``."""
        name = super().official_name(name).removeprefix("trunk.")
        for ours, theirs in (("norm.", "norm1.body."), ("bands.", "dwt_attn."), ("phase.", "fft_attn."), ("scale", "fft_scale")):
            name = re.sub(rf"^branches\.{re.escape(ours)}", f"FreqLCBlock.{theirs}", name)
        return name
