"""CLIP-LoRA: the plain baseline of NS-Net (table 4, row 1) and of DGS-Net (tables 4 and 9, row 1).

A linear head on the image feature of a CLIP whose image tower carries LoRA on q, k and v, trained with binary cross-entropy: no
caption, no projection. Here it sees what the methods see, a shuffled mosaic of patches chosen by spectral entropy.

    f = E_I(mosaic)        (B, D), not normalised
    logit = w f + b        (B,)

LoRA rank 6, alpha 6, dropout 0.8 (NS-Net, "Implementation Details"; HorizonTEL/DGS-Net@1aed871 ``options/base_options.py``).
B images, D embedding width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from nullscope.data.loading import Batch
from nullscope.data.views import PatchMosaic
from nullscope.detectors import base
from nullscope.encoders.attention import LoraParams
from nullscope.encoders.lora_clip import LoraClip, Statistics


class Config(base.DetectorParams):
    """Parameters of CLIP-LoRA."""

    lora: LoraParams
    statistics: Statistics
    flip: float = Field(ge=0, le=1)  # probability of mirroring a training mosaic; 0.5 in the code of DGS-Net


class Detector(base.Detector):
    """A LoRA'd CLIP image tower and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.view = PatchMosaic(context.patches.cells, params.flip)
        self.clip = LoraClip(context.clip, params.lora, params.statistics, context.patches)
        self.head = nn.Linear(self.clip.width, 1)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(self.clip(batch.inputs)).squeeze(1)
