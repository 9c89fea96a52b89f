"""LaDeDa: a score for every patch of 9 x 9 pixels (Cavia et al. 2024, "Real-Time Deepfake Detection in the Real-World").

A ResNet-50 whose convolutions see no more than 9 x 9 pixels judges every patch by itself. The image's logit is the mean of
its patches' logits, which is the logit of the mean feature, since the head is linear.

    r = x - up(down(x))                          (B, 3, H, W)    as NPR's, without its factor; x normalised
    f = mean over patches of P(r)                (B, 2048)       P: BagNet-9, a map of 31 x 31 patches for 256 px
    logit = w f + b                              (B,)

*Input.* As NPR: both sides resized to 256; a random window of 224 in training, all of it in testing.

*Recipe.* Adam, no weight decay. The authors lower the rate by 0.9 whenever the accuracy on validation images stands still for
some epochs, and stop when it is below 1e-6. Here a rate is a function of progress alone, so that a stopped training can go on:
0.9 after every 10 epochs, as in AIGIBench's other detectors. From random weights.

*Presets.* ``ladeda_official``: 32 images a step; ``ladeda_aigibench``: 64. Both at a rate of 2e-4. ``ladeda`` alone is a
narrow network for the embedded world, whose images are not resized.

*Not copied.* The published networks/LaDeDa.py is no valid Python (an argument without a default behind one with), and its
pooling takes the height for the width, so that it fails on images that are not square; here the mean is over both.
"""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nullscope.backbones.bagnet import PatchResNet
from nullscope.backbones.pixels import PixelEncoder
from nullscope.detectors import base, pixels
from nullscope.ops.residuals import neighbour_residual

LEAST_PX = 10  # side of an image that is not resized: a patch of 9 x 9, in cells of 2


class Config(pixels.WholeParams):
    """Parameters of LaDeDa."""

    blocks: list[PositiveInt] = Field(min_length=4, max_length=4)  # of the four stages; 3, 4, 6, 3 is the official network
    stem_momentum: PositiveFloat  # of the first batch normalisation; 0.001 is the official one, for thousands of steps


class Network(PatchResNet):
    """The patch network on the residual."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 32 * width), the mean over the patches."""
        return super().forward(neighbour_residual(x)).mean((2, 3))


class Detector(pixels.PixelDetector):
    """LaDeDa."""

    official_head = "fc"

    def __init__(self, params: Config, context: base.Context) -> None:
        network = Network(params.width, params.blocks, params.stem_momentum)
        super().__init__(params, params.transform(LEAST_PX), PixelEncoder(network), 32 * params.width)
        nn.init.normal_(self.head.weight, std=0.02)
