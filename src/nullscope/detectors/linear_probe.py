"""The frozen probe: a linear head on the image feature of a CLIP that stays as it was pre-trained.

This is the core of UnivFD (WisconsinAIVision/UniversalFakeDetect), and what every fine-tuned detector is compared with: what the
probe finds was in the pre-trained features already. Its input and schedule are those of the other detectors, so that fine-tuning
is the only difference. UnivFD's own recipe has blur, JPEG and AdamW. ``null_space`` is the plug-and-play experiment of NS-Net's
table 8.

    f = E_I(image)         (B, D), not normalised; frozen
    logit = w f + b        (B,)

B images, D embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nullscope.detectors import base, clip
from nullscope.shards.batch import Batch


class Config(clip.FeatureParams):
    """Parameters of the frozen probe."""


class Detector(clip.LinearDetector):
    """A frozen CLIP image tower and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, lora=None)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features, (B, D); nothing in front of the head trains."""
        with torch.no_grad():
            return super().features(batch)
