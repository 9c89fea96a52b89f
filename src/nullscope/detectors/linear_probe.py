"""The frozen probe: a linear head on the image feature of a CLIP that stays as it was pre-trained.

What UnivFD (WisconsinAIVision/UniversalFakeDetect) is at heart, and the yardstick of everything that fine-tunes: what it finds,
the pre-trained features knew already. It shares input and schedule with the detectors beside it, so that fine-tuning is the only
difference; UnivFD's own recipe has blur, JPEG and AdamW. ``null_space`` is the plug-and-play experiment of NS-Net's table 8.

    f = E_I(image)         (B, D), not normalised; frozen
    logit = w f + b        (B,)

B images, D embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nullscope.detectors import base, clip
from nullscope.shards.batch import Batch


class Config(clip.LinearParams):
    """Parameters of the frozen probe."""


class Detector(clip.LinearDetector):
    """A frozen CLIP image tower and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, lora=None)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features, (B, D); nothing in front of the head trains."""
        with torch.no_grad():
            return super().features(batch)
