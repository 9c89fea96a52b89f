"""SAFE (Li et al. 2024, "Improving Synthetic Image Detection Through Simple Image Transformations"): crops, not resizing.

Resizing removes what a detector should see. So images are cropped, augmented harshly, and seen through the diagonal band of a
wavelet, where content is nearly absent.

    h = up(HH(x))                        (B, 3, H, W)   HH: of bior1.3, one level; up: bilinear, to the size of x
    f = mean over pixels of R(h)         (B, 512)       R: a stem of 3 x 3 and the first two stages of ResNet-50
    z = W f + b                          (B, 2)
    logit = z_fake - z_real              (B,)

The loss is the cross-entropy of z with label smoothing, which depends on the logit alone: binary cross-entropy with 0.05 and
0.95 in place of 0 and 1.

*Input.* Pixels on [0, 1], not normalised. In training a random window of 256 (a smaller image is padded with black), flipped,
rotated by any angle, its brightness, contrast and saturation changed by up to a half, and half of the images masked in up to
three quarters of their cells of 16 x 16. In testing the central 256 x 256. ``input: patches`` takes mosaics of selected patches
(NS-Net's table 8), which are flipped alone.

*Recipe.* AdamW with a decay of 0.01 on matrices and kernels alone. The rate rises linearly over the first epoch and falls along
a cosine, per step, to 1e-6 at the end of 20 epochs. 128 images a step. From random weights.

*Presets.* ``safe_official``; AIGIBench's is the same. ``safe`` alone is a narrow network for the embedded world.

*Not copied.* The published training keeps the epoch with the best validation accuracy; here the last counts.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from nullscope.backbones.pixels import PixelEncoder
from nullscope.backbones.resnet import TruncatedResNet
from nullscope.detectors import base, pixels
from nullscope.images.augmentation import ColourJitter, Mask, Rotation
from nullscope.ops.wavelets import diagonal_band
from nullscope.shards.batch import Batch


class Config(pixels.CropOrPatches):
    """Parameters of SAFE."""

    rotation: float = Field(ge=0, le=180)  # degrees, uniform from minus to plus this
    jitter: float = Field(ge=0, le=1)
    mask: float = Field(ge=0, le=1)  # share of an image that is masked at most; half of the images are
    smoothing: float = Field(ge=0, lt=1)  # of the labels
    warmup_epochs: NonNegativeFloat
    last_lr: NonNegativeFloat


class Network(TruncatedResNet):
    """The truncated ResNet on the diagonal band."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 8 * width)."""
        return super().forward(F.interpolate(diagonal_band(x), size=x.shape[2:], mode="bilinear"))


class Detector(pixels.PixelDetector):
    """SAFE."""

    official_head = "fc1"

    def __init__(self, params: Config, context: base.Context) -> None:
        augmentations = (Rotation(params.rotation), ColourJitter(params.jitter), Mask(0.5, params.mask))
        transform = params.transform(context.patches, after=augmentations)
        encoder = PixelEncoder(Network(params.width), mean=(0.0,) * 3, std=(1.0,) * 3)
        super().__init__(params, transform, encoder, 8 * params.width, outputs=2)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy with smoothed labels."""
        target_B = batch.is_fake_B * (1 - self.params.smoothing) + self.params.smoothing / 2
        return {"bce": F.binary_cross_entropy_with_logits(self(batch), target_B)}

    def phases(self) -> list[base.Phase]:
        """Return the one phase: the rate rises linearly, then falls along a cosine."""
        params = self.params
        warm, floor = params.warmup_epochs / params.epochs, params.last_lr / params.lr

        def factor(progress: base.Progress) -> float:
            if progress.share < warm:
                return progress.share / warm
            along = (progress.share - warm) / (1 - warm)
            return floor + (1 - floor) * (1 + math.cos(math.pi * along)) / 2

        return [base.Phase("main", self.trainable(), params.epochs, params.lr, params.weight_decay, factor)]

    def optimizer(self, phase: base.Phase) -> torch.optim.Optimizer:
        """Return AdamW; biases and batch normalisation do not decay."""
        decaying = [parameter for parameter in phase.parameters if parameter.ndim > 1]
        others = [parameter for parameter in phase.parameters if parameter.ndim <= 1]
        groups = [{"params": decaying, "weight_decay": phase.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=phase.lr)
