"""CNN-Spot (Wang et al. 2020, "CNN-generated images are surprisingly easy to spot... for now"): the baseline of the field.

A ResNet-50 that is fine-tuned, with blur and JPEG as augmentation so that it does not rest on the finest traces alone.

    f = ResNet-50(x)             (B, 2048)       x normalised
    logit = w f + b              (B,)

*Input.* In training the shorter side is resized to 256, some images are blurred (sigma uniform from 0 to 3 px) and some go
through JPEG (quality uniform from 30 to 100), and a random window of 224 is cut. In testing nothing is resized: the central
224 x 224, where what a smaller image lacks is black. The authors recommend the whole image (``test_crop_px: null``).

*Recipe.* Adam, no weight decay, from ImageNet weights (``initial: imagenet``; the stage `encoders` brings them). The authors
divide the rate by 10 whenever the validation accuracy stands still, and stop below 1e-6: three rates, 1e-4, 1e-5 and 1e-6. Here
a rate is a function of progress alone, so that a stopped training can go on: each of the three for a third of the epochs.

*Presets.* ``cnn_spot_official`` blurs and compresses half of the images (the checkpoint ``blur_jpg_prob0.5``) and takes 64 a
step; ``cnn_spot_aigibench`` one in ten, and 128. ``cnn_spot`` alone is a narrow network for the embedded world, from random
weights and without resizing.

*Not copied.* OpenCV writes half of the authors' JPEG files; here Pillow writes all. They keep the epoch with the best accuracy
on validation images, and count as progress what is more than 0.001; here the last epoch counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt
from torch import nn

from nullscope.backbones.pixels import PixelEncoder
from nullscope.backbones.resnet import ResNet50
from nullscope.detectors import base, pixels
from nullscope.images.augmentation import AugmentedCrop, Blur, Jpeg

BLUR_PX, QUALITY = (0.0, 3.0), (30, 100)  # of the augmentation
RATES = (1.0, 0.1, 0.01)  # factors of the learning rate, each for an equal part of the training


class Config(pixels.PixelParams):
    """Parameters of CNN-Spot."""

    blocks: list[PositiveInt] = Field(min_length=4, max_length=4)  # of the four stages; 3, 4, 6, 3 is ResNet-50
    initial: Literal["imagenet", "random"]  # weights that the training begins with
    augmented: float = Field(ge=0, le=1)  # share of the training images that are blurred; and, drawn apart, compressed
    short_px: PositiveInt | None  # the shorter side of a training image; None: as it is
    crop_px: PositiveInt  # of a training image
    test_crop_px: PositiveInt | None


class Detector(pixels.PixelDetector):
    """CNN-Spot."""

    official_head = "fc"

    def __init__(self, params: Config, context: base.Context) -> None:
        augmentations = (Blur(params.augmented, *BLUR_PX), Jpeg(params.augmented, *QUALITY))
        transform = AugmentedCrop(
            params.crop_px, params.test_crop_px, params.flip, short_px=params.short_px, before=augmentations
        )
        super().__init__(params, transform, PixelEncoder(ResNet50(params.width, params.blocks)), 32 * params.width)
        nn.init.normal_(self.head.weight, std=0.02)

    def begin(self, folder: Path) -> None:
        """Take ImageNet's weights, where the parameters ask for them."""
        if self.params.initial == "imagenet":
            self.encoder.network.begin(folder / "resnet50.safetensors")

    def phases(self) -> list[base.Phase]:
        """Return the one phase, at three rates."""
        params = self.params

        def factor(progress: base.Progress) -> float:
            return RATES[int(progress.share * len(RATES))]

        return [base.Phase("main", self.trainable(), params.epochs, params.lr, params.weight_decay, factor)]
