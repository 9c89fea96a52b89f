"""NPR: the relation of neighbouring pixels (Tan et al. 2024, "Rethinking the Up-Sampling Operations in CNN-based Generative
Network for Generalizable Deepfake Detection").

Generators enlarge small feature maps. What that leaves behind shows in the relation of neighbouring pixels, and a small
network that sees nothing else finds it.

    r = 2/3 (x - up(down(x)))            (B, 3, H, W)   nearest neighbour, by a factor of 2; x normalised
    f = mean over pixels of R(r)         (B, 512)       R: a stem of 3 x 3 and the first two stages of ResNet-50
    logit = w f + b                      (B,)

The top left pixel of each cell of 2 x 2 is always 0 in r.

*Input.* Both sides are resized to 256, whatever the aspect. A random window of 224 is cut in training; all 256 are seen in
testing. Resizing changes the signal that the method is about; the authors do so nevertheless.

*Recipe.* Adam, no weight decay; after every 10 epochs the rate is 0.9 times what it was. From random weights.

*Presets.* ``npr_official``: the README of chuangchuangtan/NPR-DeepfakeDetection (rate 2e-4, 32 images a step, 50 epochs).
``npr_aigibench``: HorizonTEL/AIGIBench (128 images a step, 101 epochs). The network and the input are the same. ``npr`` alone
is a narrow network for the embedded world, whose images are not resized.

*Not copied.* AIGIBench's shipped code rotates, jitters and masks; its published row was trained without. It tests the
checkpoint of epoch 80, and no rule for that choice is published; here the last epoch counts. The README trims images with an
odd side when it tests them at their own size; here the residual always does so.
"""

from __future__ import annotations

from torch import Tensor

from nullscope.backbones.pixels import PixelEncoder
from nullscope.backbones.resnet import TruncatedResNet
from nullscope.detectors import base, pixels
from nullscope.ops.residuals import neighbour_residual

LEAST_PX = 8  # side of an image that is not resized: two cells of the residual, and two pixels behind the stem


class Config(pixels.WholeParams):
    """Parameters of NPR."""


class Network(TruncatedResNet):
    """The truncated ResNet on the residual."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 8 * width)."""
        return super().forward(neighbour_residual(x) * 2 / 3)


class Detector(pixels.PixelDetector):
    """NPR."""

    official_head = "fc1"

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, params.transform(LEAST_PX), PixelEncoder(Network(params.width)), 8 * params.width)
