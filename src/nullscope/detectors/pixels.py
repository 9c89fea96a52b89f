"""What the detectors on pixels share: a network from normalised images to features, and a linear head. K width of the feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from nullscope.backbones.pixels import PixelEncoder
from nullscope.detectors import base
from nullscope.images.augmentation import Augmentation, AugmentedCrop
from nullscope.images.transforms import PatchMosaic, Transform, WholeImage
from nullscope.ops.patches import PatchParams
from nullscope.shards.batch import Batch


class PixelParams(base.DetectorParams):
    """What every detector on pixels needs beside what every detector does."""

    width: PositiveInt  # channels of the network's first stage; 64 is the official network, less is a narrow one
    weight_decay: NonNegativeFloat
    flip: float = Field(ge=0, le=1)  # probability of flipping a training image


class WholeParams(PixelParams, base.SteppedParams):
    """Of those that take whole images, resized or as they are, and train on windows of them."""

    resize_px: PositiveInt | None  # both sides of every image; None: as they are
    crop_px: PositiveInt  # of a training image
    test_crop_px: PositiveInt | None

    def transform(self, least_px: int) -> WholeImage:
        """Return the transform; ``least_px`` is the shortest side that the network takes: of images that are not resized."""
        return WholeImage(self.resize_px, self.crop_px, self.test_crop_px, self.flip, 1 if self.resize_px else least_px)


class CropOrPatches(PixelParams):
    """Of those that take windows at the pixels' own scale, or mosaics of selected patches (NS-Net's table 8)."""

    input: Literal["crop", "patches"]
    crop_px: PositiveInt = Field(multiple_of=4)  # in training and in testing

    def transform(self, patches: PatchParams, after: tuple[Augmentation, ...] = ()) -> Transform:
        """Return the transform; ``after``: what augments a window. Mosaics are not augmented, but for flipping."""
        if self.input == "patches":
            return PatchMosaic(patches.cells, self.flip, patches.patch_px)
        return AugmentedCrop(self.crop_px, self.crop_px, self.flip, after=after)


class PixelDetector(base.Detector):
    """A network on normalised pixels and a linear head.

    f = network(image)        (B, K)
    logit = w f + b           (B,)
    """

    official_head: ClassVar[str]  # what the head is called in a published checkpoint
    official_constants: ClassVar[str] = "(?!)"  # names in a checkpoint that are no weights, a regular expression; none
    # Parameters that its published checkpoints do not record, with what speaks for each value: an import must name them.
    unrecorded: ClassVar[Mapping[str, str]] = {}

    def __init__(self, params: PixelParams, transform: Transform, encoder: PixelEncoder, width: int, outputs: int = 1) -> None:
        """``width``: K; ``outputs``: 2, where the official head has one for reals and one for fakes."""
        super().__init__(params)
        self.transform, self.encoder, self.head = transform, encoder, nn.Linear(width, outputs)

    def features(self, batch: Batch) -> Tensor:
        """Return the features, (B, K) float32."""
        return self.encoder(batch.inputs).float()

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,); of two outputs the fake's less the real's."""
        output_BO = self.head(feature_BK)
        return output_BO[:, -1] - output_BO[:, 0] if output_BO.shape[1] == 2 else output_BO.squeeze(1)

    def phases(self) -> list[base.Phase]:
        """Return the one phase; the learning rate falls in steps where the parameters say so."""
        params = self.params
        factor = params.factor if isinstance(params, base.SteppedParams) else base.constant
        return [base.Phase("main", self.trainable(), params.epochs, params.lr, params.weight_decay, factor)]

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return what the published checkpoint calls the tensor that `kept_state` calls ``name``."""
        part, _, rest = name.partition(".")
        return f"{cls.official_head}.{rest}" if part == "head" else rest.removeprefix("network.")
