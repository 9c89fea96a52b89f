"""A small ResNet on pixels: the tests' own detector without CLIP, written as docs/adding_a_detector.md says.

    f = mean over pixels of ResNet(image)        (B, K)
    logit = w f + b                              (B,)

Images are resized and cropped for training, and only resized for testing. AdamW; after every so many epochs the learning rate is
multiplied by a factor. B images, K channels.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.pixels import PixelEncoder
from nullscope.detectors import base
from nullscope.images.transforms import WholeImage
from nullscope.shards.batch import Batch


class Config(base.DetectorParams):
    """Parameters of the small ResNet."""

    channels: PositiveInt
    resize_px: PositiveInt
    crop_px: PositiveInt
    weight_decay: NonNegativeFloat
    decay_epochs: PositiveInt  # epochs between two steps of the learning rate
    decay: PositiveFloat


class Block(nn.Module):
    """Two convolutions with batch normalisation, and the way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2)]
        self.inner = nn.Sequential(
            convolutions[0], nn.BatchNorm2d(channels), nn.ReLU(), convolutions[1], nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, H, W) -> (B, K, H, W)."""
        return F.relu(x + self.inner(x))


class Detector(base.Detector):
    """A stem, two blocks and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.transform = WholeImage(params.resize_px, params.crop_px, None, flip=0.5, min_side_px=8)
        stem = nn.Sequential(nn.Conv2d(3, params.channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(params.channels))
        blocks = nn.Sequential(Block(params.channels), Block(params.channels))
        self.encoder = PixelEncoder(nn.Sequential(stem, nn.ReLU(), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.head = nn.Linear(params.channels, 1)

    def features(self, batch: Batch) -> Tensor:
        """Return the features, (B, K)."""
        return self.encoder(batch.inputs).float()

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)

    def phases(self) -> list[base.Phase]:
        """Return the one phase: the learning rate falls in steps."""
        params = self.params

        def factor(progress: base.Progress) -> float:
            return params.decay ** (progress.epoch // params.decay_epochs)

        return [base.Phase("main", self.trainable(), params.epochs, params.lr, params.weight_decay, factor)]

    def optimizer(self, phase: base.Phase) -> torch.optim.Optimizer:
        """Return AdamW; biases and batch normalisation do not decay."""
        weights = [parameter for parameter in phase.parameters if parameter.ndim > 1]
        others = [parameter for parameter in phase.parameters if parameter.ndim <= 1]
        groups = [{"params": weights, "weight_decay": phase.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=phase.lr)
