"""FreqNet: high frequencies of the image and of the features (Tan et al. 2024, "Frequency-Aware Deepfake Detection: Improving
Generalizability through Frequency Space Learning").

A truncated ResNet-50 is given nothing but high frequencies, again and again, and learns convolutions on spectra beside those
on pixels.

    H(x)      x without the lower half of its frequencies along both axes, positive part
    C(x)      the same along the channels
    S_i(x)    positive part of F^-1(A_i Re F(x) + j B_i Im F(x)), with A_i, B_i convolutions of 1 x 1
    K_i(x)    positive part of a convolution of 1 x 1 with a bias

    x1 = S_1(C(K_1(H(x))))                       (B, 64, H, W)
    x2 = S_2(C(K_2(H(x1))))                      (B, 64, H/2, W/2)      K_2 by steps of 2
    x3 = layer1(maxpool(x2))                     (B, 256, H/4, W/4)
    x4 = S_4(K_4(H(S_3(K_3(H(x3))))))            (B, 256, H/8, W/8)     K_4 by steps of 2
    f = mean over pixels of layer2(x4)           (B, 512)
    logit = w f + b                              (B,)

*Input.* As NPR: both sides resized to 256; a random window of 224 in training, all of it in testing.

*Recipe.* Adam at 1e-4, no weight decay, 128 images a step, 101 epochs, the rate times 0.9 after every 10. From random weights;
those of K are drawn from N(0, 1), as published.

*Presets.* FreqNet's own repository holds no code, so there is one, ``freqnet_aigibench``. ``freqnet`` alone is a narrow network
for the embedded world, whose images are not resized.

*Not copied.* AIGIBench's test loop drops the last images of a folder that fill no batch, all of them fakes. Its published row
is of epoch 50, and no rule for that choice is published; here the last epoch counts.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.pixels import PixelEncoder
from nullscope.backbones.resnet import BLOCKS, initialise, stage
from nullscope.detectors import base, pixels
from nullscope.ops.frequency import high_pass_channels, high_pass_space, spectral_convolution

LEAST_PX = 16  # side of an image that is not resized: two pixels are left at the last high-pass


class Config(pixels.WholeParams):
    """Parameters of FreqNet."""


class Network(nn.Module):
    """FreqNet without its head, (B, 3, H, W) to (B, 8 * width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wides = (width, width, 4 * width, 4 * width)
        shapes = ((3, width, 1), (width, width, 2), (4 * width, 4 * width, 1), (4 * width, 4 * width, 2))
        self.plain = nn.ModuleList(nn.Conv2d(wide_in, wide, 1, step) for wide_in, wide, step in shapes)
        self.real = nn.ModuleList(nn.Conv2d(wide, wide, 1, bias=False) for wide in wides)
        self.imaginary = nn.ModuleList(nn.Conv2d(wide, wide, 1, bias=False) for wide in wides)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(width, width, BLOCKS[0], stride=1)
        self.layer2 = stage(4 * width, 2 * width, BLOCKS[1], stride=2)
        initialise(self)
        for convolution in self.plain:
            nn.init.normal_(convolution.weight)
            nn.init.normal_(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, averaged over the pixels."""
        for number in (0, 1):
            x = self._spectral(number, high_pass_channels(self._plain(number, high_pass_space(x))))
        x = self.layer1(self.maxpool(x))
        for number in (2, 3):
            x = self._spectral(number, self._plain(number, high_pass_space(x)))
        return self.layer2(x).mean((2, 3))

    def _plain(self, number: int, x: Tensor) -> Tensor:
        return F.relu(self.plain[number](x))

    def _spectral(self, number: int, x: Tensor) -> Tensor:
        return spectral_convolution(x, self.real[number].weight, self.imaginary[number].weight)


class Detector(pixels.PixelDetector):
    """FreqNet."""

    official_head = "fc1"

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, params.transform(LEAST_PX), PixelEncoder(Network(params.width)), 8 * params.width)

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return the published name: ``weight1`` and ``bias1`` of the plain convolutions, ``realconv1``, ``imagconv1``."""
        name = super().official_name(name)
        if found := re.fullmatch(r"plain\.(\d)\.(weight|bias)", name):
            return f"{found[2]}{int(found[1]) + 1}"
        return re.sub(r"^(real|imag)(?:inary)?\.(\d)", lambda part: f"{part[1]}conv{int(part[2]) + 1}", name)
