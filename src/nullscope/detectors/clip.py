"""What the detectors on CLIP's image feature share. B images, D embedding width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from nullscope.backbones.attention import LoraParams, merge_lora
from nullscope.backbones.clip import clip_facts
from nullscope.backbones.image_encoder import ImageEncoder, Statistics
from nullscope.detectors.base import Context, Detector, DetectorParams
from nullscope.images.augmentation import AugmentedCrop, Blur, Jpeg
from nullscope.images.transforms import PatchMosaic, Transform, WholeImage
from nullscope.ops.null_space import NullSpace, NullSpaceParams
from nullscope.shards.batch import Batch

CLIP = "clip"  # the name of the backbone
BLUR_PX, QUALITY = (0.0, 3.0), (30, 100)  # of the augmentation


class TowerParams(DetectorParams):
    """What every detector on CLIP's image tower needs beside what every detector does."""

    statistics: Statistics
    flip: float = Field(ge=0, le=1)  # probability of flipping a training image; 0.5 in the code of DGS-Net


class ClipParams(TowerParams):
    """What those need beside that whose input is a choice."""

    input: Literal["patches", "crop", "resize"]  # the patch-selected mosaic, or see nullscope.images.transforms.WholeImage


class FeatureParams(ClipParams):
    """What a classifier of that feature needs beside that."""

    null_space: NullSpaceParams  # what is taken off the feature first; scope `none`: nothing


class AugmentedParams(FeatureParams):
    """Of those whose training crops are blurred and compressed, as CNN-Spot's. Other inputs are not augmented."""

    short_px: PositiveInt | None  # the shorter side of a training image that is cropped; None: as it is
    augmented: float = Field(ge=0, le=1)  # share of the training images that are blurred; and, drawn apart, compressed


class ClipDetector(Detector):
    """A detector on the image tower of a CLIP."""

    backbones: ClassVar[tuple[str, ...]] = (CLIP,)

    def __init__(
        self, params: TowerParams, context: Context, lora: LoraParams | None, transform: Transform | None = None
    ) -> None:
        """``lora``: the adapter of the tower; None leaves it frozen. ``transform``: None for the one that `ClipParams` ask for.

        Raises `ValueError` if a mosaic does not fit the CLIP.
        """
        super().__init__(params)
        self.transform = transform or _transform(params, context)
        self.clip = ImageEncoder(context.backbone(CLIP), lora, params.statistics)

    def merge(self) -> None:
        """Add the adapters of the tower to its projections."""
        merge_lora(self.clip.tower)


class FeatureDetector(ClipDetector):
    """A classifier of CLIP's image feature, off what captions could say if its null space says so.

    u = f - (f B) B^T, f = E_I(image)        (B, D), not normalised
    """

    def __init__(self, params: FeatureParams, context: Context, lora: LoraParams | None) -> None:
        """``lora``: the adapter of the image tower; None leaves it frozen."""
        super().__init__(params, context, lora)
        self.null_space = NullSpace(params.null_space, self.clip.width)
        self.needs_captions = self.null_space.needs_captions
        self.captions_at_inference = self.null_space.captions_at_inference

    def see_captions(self, texts: Iterable[Tensor]) -> None:
        """Find what the null space removes, where there is one."""
        self.null_space.fit(texts)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features u, (B, D)."""
        return self.null_space(self.clip(batch.inputs), batch.text_BD)


class LinearDetector(FeatureDetector):
    """A linear head on that feature.

        logit = w u + b                          (B,)

    What else a detector draws at random, it draws after this: adapter, then head.
    """

    def __init__(self, params: FeatureParams, context: Context, lora: LoraParams | None) -> None:
        """``lora``: the adapter of the image tower; None leaves it frozen."""
        super().__init__(params, context, lora)
        self.head = nn.Linear(self.clip.width, 1)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)


def _transform(params: ClipParams, context: Context) -> Transform:
    """Return the transform that ``params`` ask for. Raises `ValueError` if a mosaic does not fit the CLIP."""
    side, patches = clip_facts(context.backbone(CLIP)).image_px, context.patches
    least = patches.patch_px  # as the index, whatever the input
    if isinstance(params, AugmentedParams) and params.input == "crop":
        augmentations = (Blur(params.augmented, *BLUR_PX), Jpeg(params.augmented, *QUALITY))
        return AugmentedCrop(side, side, params.flip, params.short_px, before=augmentations, min_side_px=least)
    if isinstance(params, AugmentedParams) and (params.augmented or params.short_px):
        raise ValueError(f"short_px and augmented are of input `crop`; found input `{params.input}`: leave them out (null, 0.0)")
    if params.input == "crop":
        return WholeImage(None, side, side, params.flip, least)
    if params.input == "resize":
        return WholeImage(side, None, None, params.flip, least)
    if side != patches.mosaic_px:
        raise ValueError(
            f"CLIP expects images of {side} px, a mosaic of {patches.grid} x {patches.grid} patches of {patches.patch_px} px has "
            f"{patches.mosaic_px}; choose the encoder and patches.patch_px together"
        )
    return PatchMosaic(patches.cells, params.flip, least)
