"""Tiny-LaDeDa: LaDeDa in four convolutions and 1,297 parameters (Cavia et al. 2024, as LaDeDa).

    r = g(x)                                     (B, 3, H, W)    g: a derivative, or NPR's residual; x normalised
    f = mean over patches of P(r)                (B, 8)          126 x 126 patches for 256 px
    logit = w f + b                              (B,)

*Input.* As LaDeDa: both sides resized to 256; a random window of 224 in training, all of it in testing.

*The derivative.* The code's default is ``right_diag``. The released checkpoints do not say which one they were trained with.
Their running statistics do: of the variances that batch normalisation recorded on ForenSynths, those that our images give
differ by a factor of 1.2 (rms) with NPR's residual and of 100 with ``right_diag``, with which it calls everything generated.
The checkpoint of WildRF fits a derivative; which of the four cannot be told. So it is a parameter, ``residual``.

*Recipe.* The authors train it to give LaDeDa's logit of every patch (mean squared error); the published script does not run.
Here it is trained on labels like the others, with Adam. So a trained ``tiny_ladeda`` is its network, not its distillation.

*Presets.* ``tiny_ladeda_official`` has the published input and rate. ``tiny_ladeda`` alone is for the embedded world, whose
images are not resized; the network is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import PositiveFloat
from torch import Tensor

from nullscope.backbones.bagnet import TinyPatchNet
from nullscope.backbones.pixels import PixelEncoder
from nullscope.detectors import base, pixels
from nullscope.ops.residuals import gradient, neighbour_residual

LEAST_PX = 8  # side of an image that is not resized: a patch of 5 x 5, in cells of 2


class Config(pixels.WholeParams):
    """Parameters of Tiny-LaDeDa."""

    residual: Literal["npr", "x_grad", "y_grad", "left_diag", "right_diag"]
    stem_momentum: PositiveFloat  # of the first batch normalisation; 0.001 is the official one, for thousands of steps


class Network(TinyPatchNet):
    """The tiny patch network on a residual."""

    def __init__(self, residual: str, width: int, stem_momentum: float) -> None:
        super().__init__(width, stem_momentum)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width), the mean over the patches."""
        residual = neighbour_residual(x) if self.residual == "npr" else gradient(x, self.residual)
        return super().forward(residual).mean((2, 3))


class Detector(pixels.PixelDetector):
    """Tiny-LaDeDa."""

    official_head = "fc"
    unrecorded: ClassVar[Mapping[str, str]] = {
        "residual": "the running statistics of ForenSynth_Tiny_LaDeDa.pth fit npr (factor 1.2; right_diag, its code's default: "
        "over 100), those of WildRF_Tiny_LaDeDa.pth x_grad, y_grad, left_diag and right_diag alike (1.2 to 1.4; npr: 24)"
    }

    def __init__(self, params: Config, context: base.Context) -> None:
        network = Network(params.residual, params.width, params.stem_momentum)
        super().__init__(params, params.transform(LEAST_PX), PixelEncoder(network), params.width)
