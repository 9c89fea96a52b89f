"""The frozen probe: a linear head on the image feature of a CLIP that stays as it was pre-trained.

What UnivFD (WisconsinAIVision/UniversalFakeDetect) is at heart, and the yardstick of everything that fine-tunes: what it finds,
the pre-trained features knew already. It shares view and schedule with the detectors beside it, so that fine-tuning is the only
difference; UnivFD's own recipe has blur, JPEG and AdamW. ``null_space`` is the plug-and-play experiment of NS-Net's table 8.

    f = E_I(image)         (B, D), not normalised; frozen
    logit = w f + b        (B,)

B images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nullscope.data.loading import Batch
from nullscope.detectors import base
from nullscope.encoders.image_encoder import ImageEncoder
from nullscope.ops.null_space import NullSpace, NullSpaceParams


class Config(base.ClipParams):
    """Parameters of the frozen probe."""

    null_space: NullSpaceParams


class Detector(base.Detector):
    """A frozen CLIP image tower and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.view = context.view(params)
        self.clip = ImageEncoder(context.clip, None, params.statistics)
        self.null_space = NullSpace(params.null_space, self.clip.width)
        self.needs_captions = self.null_space.needs_captions
        self.captions_at_inference = self.null_space.captions_at_inference
        self.head = nn.Linear(self.clip.width, 1)

    def prepare(self, texts: Iterable[Tensor]) -> None:
        """Find what the null space removes, where there is one."""
        self.null_space.prepare(texts)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features, (B, D)."""
        with torch.no_grad():
            return self.null_space(self.clip(batch.inputs), batch.text_BD)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)
