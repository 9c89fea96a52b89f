"""CLIP-LoRA: the plain baseline of NS-Net (table 4, row 1) and of DGS-Net (tables 4 and 9, row 1).

A linear head on the image feature of a CLIP whose image tower carries LoRA on q, k and v, trained with binary cross-entropy: no
caption, no projection. Here it sees what the methods see, a shuffled mosaic of patches chosen by spectral entropy; ``view: crop``
gives it the image itself (NS-Net's row 1), ``null_space`` the projection of NS-Net (its plug-and-play experiments).

    f = E_I(image)         (B, D), not normalised
    logit = w f + b        (B,)

LoRA rank 6, alpha 6, dropout 0.8 (NS-Net, "Implementation Details"; HorizonTEL/DGS-Net@1aed871 ``options/base_options.py``).
B images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from nullscope.data.loading import Batch
from nullscope.detectors import base
from nullscope.encoders.attention import LoraParams
from nullscope.encoders.image_encoder import ImageEncoder
from nullscope.ops.null_space import NullSpace, NullSpaceParams


class Config(base.ClipParams):
    """Parameters of CLIP-LoRA."""

    lora: LoraParams
    null_space: NullSpaceParams


class Detector(base.Detector):
    """A LoRA'd CLIP image tower and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.view = context.view(params)
        self.clip = ImageEncoder(context.clip, params.lora, params.statistics)
        self.null_space = NullSpace(params.null_space, self.clip.width)
        self.needs_captions = self.null_space.needs_captions
        self.captions_at_inference = self.null_space.captions_at_inference
        self.head = nn.Linear(self.clip.width, 1)

    def prepare(self, texts: Iterable[Tensor]) -> None:
        """Find what the null space removes, where there is one."""
        self.null_space.prepare(texts)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features, (B, D)."""
        return self.null_space(self.clip(batch.inputs), batch.text_BD)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)
