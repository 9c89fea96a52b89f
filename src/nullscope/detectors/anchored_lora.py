"""Anchored LoRA: the plain LoRA detector and the frozen probe on one tower, their logits mixed. Ours, no paper's.

Fine-tuning ranks the fakes of generators it saw better than the frozen features do, and some of those it did not see worse. So
the tower is run twice, with its adapters and without, and both heads have a say. Neither is trained differently for it. B images,
D embedding width.

    f, f0 = E_I(mosaic) with adapters, without         (B, D) each, not normalised
    z, z0 = w f + b, w0 f0 + b0                        each trained alone with binary cross-entropy
    logit = (1 - a) z + a z0                           a: the frozen share; 0 is CLIP-LoRA, 1 the frozen probe

Mixing the outputs of a fine-tuned and a zero-shot model is the simplest form of Wortsman et al. 2022 ("Robust fine-tuning of
zero-shot models"). What it is worth here, and on which generators the choice was not made, stands in docs/forgetting.md.
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.data.loading import Batch
from nullscope.detectors import base
from nullscope.encoders.attention import LoraParams
from nullscope.encoders.image_encoder import ImageEncoder


class Config(base.ClipParams):
    """Parameters of anchored LoRA."""

    lora: LoraParams
    frozen_share: float = Field(ge=0, le=1)  # a
    frozen_epochs: PositiveInt  # of the phase that trains w0
    frozen_lr: PositiveFloat


class Detector(base.Detector):
    """A LoRA'd CLIP image tower with one head on its features and one on those of the tower without adapters."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.view = context.view(params)
        self.clip = ImageEncoder(context.clip, params.lora, params.statistics)
        self.head = nn.Linear(self.clip.width, 1)
        self.frozen_head = nn.Linear(self.clip.width, 1)

    def phases(self) -> list[base.Phase]:
        """Return ``frozen_head`` and ``main``."""
        frozen = list(self.frozen_head.parameters())
        rest = [p for p in self.parameters() if p.requires_grad and not any(p is own for own in frozen)]
        return [
            base.Phase("frozen_head", frozen, self.params.frozen_epochs, self.params.frozen_lr),
            base.Phase("main", rest, self.params.epochs, self.params.lr),
        ]

    def features(self, batch: Batch) -> Tensor:
        """Return f and f0 side by side, (B, 2 D)."""
        return torch.cat([self.clip(batch.inputs), self.frozen_features(batch)], dim=1)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the mixed logits, (B,)."""
        feature_BD, frozen_BD = feature_BK.chunk(2, dim=1)
        share = self.params.frozen_share
        return ((1 - share) * self.head(feature_BD) + share * self.frozen_head(frozen_BD)).squeeze(1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the head whose phase it is: ``frozen_bce`` or ``bce``."""
        if self.phase == "frozen_head":
            logit_B = self.frozen_head(self.frozen_features(batch)).squeeze(1)
            return {"frozen_bce": F.binary_cross_entropy_with_logits(logit_B, batch.is_fake_B)}
        logit_B = self.head(self.clip(batch.inputs)).squeeze(1)
        return {"bce": F.binary_cross_entropy_with_logits(logit_B, batch.is_fake_B)}

    def frozen_features(self, batch: Batch) -> Tensor:
        """Return f0, (B, D), without a graph."""
        with torch.no_grad(), self.clip.frozen():
            return self.clip(batch.inputs)
