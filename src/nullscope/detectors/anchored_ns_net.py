"""Anchored NS-Net: NS-Net and the frozen probe on one tower, their logits mixed. This method is ours; no paper has it.

Fine-tuning improves the ranking of fakes from generators that training saw. For some generators that it did not see, the ranking
gets worse than with the frozen features. So the tower runs twice, with its adapters and without, and the logits of both heads are
mixed. Each head is trained as it would be alone. B images, D embedding width.

    u = P E_I(mosaic)                                  with adapters, off the null space's directions: NS-Net, eq. 10; (B, D)
    f0 = E_I(mosaic) without adapters                  (B, D), not normalised
    z, z0 = w u + b, w0 f0 + b0                        trained alone: z as NS-Net (eq. 12), z0 with binary cross-entropy
    logit = (1 - a) z + a z0                           a: the frozen share; 0 is NS-Net, 1 the frozen probe

Mixing the outputs of a fine-tuned and a zero-shot model is the simplest form of Wortsman et al. 2022 ("Robust fine-tuning of
zero-shot models"). What it is worth, and on which generators a was not chosen, stands in docs/findings.md.
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.attention import LoraParams
from nullscope.detectors import base, clip
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.shards.batch import Batch


class Config(clip.FeatureParams):
    """Parameters of anchored NS-Net."""

    lora: LoraParams
    bce_weight: float = Field(ge=0, le=1)  # lambda of NS-Net's eq. 12; 1 leaves the contrastive loss out
    temperature: PositiveFloat  # tau of eq. 11
    frozen_share: float = Field(ge=0, le=1)  # a
    frozen_epochs: PositiveInt  # of the phase that trains w0
    frozen_lr: PositiveFloat


class Detector(clip.LinearDetector):
    """A LoRA'd CLIP image tower with one head on its projected features and one on those of the tower without adapters."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, params.lora)
        self.frozen_head = nn.Linear(self.clip.width, 1)

    def phases(self) -> list[base.Phase]:
        """Return ``frozen_head`` and ``main``."""
        frozen = list(self.frozen_head.parameters())
        return [
            base.Phase("frozen_head", frozen, self.params.frozen_epochs, self.params.frozen_lr),
            base.Phase("main", self.trainable(but=frozen), self.params.epochs, self.params.lr),
        ]

    def features(self, batch: Batch) -> Tensor:
        """Return u and f0 side by side, (B, 2 D)."""
        return torch.cat([super().features(batch), self.frozen_features(batch)], dim=1)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the mixed logits, (B,)."""
        tuned_BD, frozen_BD = feature_BK.chunk(2, dim=1)
        share = self.params.frozen_share
        return ((1 - share) * self.head(tuned_BD) + share * self.frozen_head(frozen_BD)).squeeze(1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the phase: ``frozen_bce``, or NS-Net's ``bce`` and ``contrastive``, weighted."""
        if self.phase == "frozen_head":
            logit_B = self.frozen_head(self.frozen_features(batch)).squeeze(1)
            return {"frozen_bce": F.binary_cross_entropy_with_logits(logit_B, batch.is_fake_B)}
        tuned_BD, weight = super().features(batch), self.params.bce_weight
        terms = {"bce": weight * F.binary_cross_entropy_with_logits(self.head(tuned_BD).squeeze(1), batch.is_fake_B)}
        if weight < 1:
            loss = supervised_contrastive_loss(tuned_BD, batch.is_fake_B, temperature=self.params.temperature)
            terms["contrastive"] = (1 - weight) * loss
        return terms

    def merge(self) -> None:
        """Merge nothing: the tower is run without its adapters too."""

    def frozen_features(self, batch: Batch) -> Tensor:
        """Return f0, (B, D), without a graph."""
        with torch.no_grad(), self.clip.frozen():
            return self.clip(batch.inputs)
