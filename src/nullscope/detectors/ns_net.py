"""NS-Net: remove from CLIP's image feature what a caption could say, and learn real against fake on what is left.

"NS-Net", arXiv text in the paper's equations 1 to 12; no official code exists. B images, D embedding width, N captions,
k removed directions.

    f = E_I(mosaic)                      image feature of the LoRA'd CLIP, (B, D)
    V = E_T(captions)                    text features of BLIP captions, rows; frozen, (N, D)
    u = f - (f B) B^T                    B: orthonormal basis of the row space of V, (D, k): the null-space projection, eqs. 5-10
    logit = w u + b
    L = (1 - lambda) L_con(u) + lambda L_bce, lambda = 0.2                  eqs. 11, 12

What the paper leaves open, and what is done here:

- *Which captions make V.* ``global``: the leading directions of all training captions, by rank or energy (288,000 captions span
  all 768 dimensions, so the exact null space is empty). The default, because then a test image needs no caption and its score
  depends on nothing else. ``batch``: equations 5-9 on the captions of the mini-batch, as they are written; ``sample``: each image
  off its own caption, rank one. With these two the projection needs a caption at test time, of which the paper says nothing; by
  the law that a score depends on its image alone they are projected in training and not in testing.
- *Text features* are normalised to unit length, so that every caption counts the same.
- *Temperature* of L_con: 0.07 (the notebooks of Advanced NS-Net). Features are normalised inside the loss.
- L_con is written as self-supervised and cites SimCLR; the formula is the supervised one, and so is this.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.data.loading import Batch
from nullscope.data.views import PatchMosaic
from nullscope.detectors import base
from nullscope.encoders.attention import LoraParams
from nullscope.encoders.lora_clip import LoraClip, Statistics
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.ops.null_space import NullSpaceParams, basis_of_gram, batch_basis, gram, remove, remove_own


class Config(base.DetectorParams):
    """Parameters of NS-Net."""

    lora: LoraParams
    statistics: Statistics
    flip: float = Field(ge=0, le=1)  # probability of mirroring a training mosaic; 0.5 in the code of DGS-Net
    null_space: NullSpaceParams
    bce_weight: float = Field(ge=0, le=1)  # lambda of eq. 12; 1 leaves the contrastive loss out
    temperature: PositiveFloat  # tau of eq. 11


class Detector(base.Detector):
    """A LoRA'd CLIP image tower, the null-space projection and a linear head."""

    needs_captions = True

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params)
        self.view = PatchMosaic(context.patches.cells, params.flip)
        self.clip = LoraClip(context.clip, params.lora, params.statistics, context.patches)
        self.head = nn.Linear(self.clip.width, 1)
        self.register_buffer("basis_DK", torch.zeros(self.clip.width, 0))  # `prepare` fills it for the scope `global`

    def prepare(self, texts: Iterable[Tensor]) -> None:
        """Compute the basis of what is removed from the captions of the whole training set, in float64."""
        rule = self.params.null_space
        if rule.scope == "global":
            gram_DD = gram(F.normalize(text_ND.double(), dim=1) for text_ND in texts)
            self.basis_DK = basis_of_gram(gram_DD, rank=rule.rank, energy=rule.energy).to(self.basis_DK)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(self.project(self.clip(batch.inputs), batch.text_BD)).squeeze(1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return both terms of eq. 12, weighted: ``contrastive`` and ``bce``."""
        feature_BD = self.project(self.clip(batch.inputs), batch.text_BD)
        logit_B = self.head(feature_BD).squeeze(1)
        weight = self.params.bce_weight
        terms = {"bce": weight * F.binary_cross_entropy_with_logits(logit_B, batch.is_fake_B)}
        if weight < 1:
            loss = supervised_contrastive_loss(feature_BD, batch.is_fake_B, temperature=self.params.temperature)
            terms["contrastive"] = (1 - weight) * loss
        return terms

    def project(self, feature_BD: Tensor, text_BD: Tensor | None) -> Tensor:
        """Remove the semantics: eq. 10. ``text_BD`` are the captions of the batch in training, None in testing."""
        scope = self.params.null_space.scope
        if scope == "global":
            return remove(feature_BD, self.basis_DK)
        if scope == "none" or text_BD is None:
            return feature_BD
        if scope == "batch":
            return remove(feature_BD, batch_basis(F.normalize(text_BD, dim=1)))
        return remove_own(feature_BD, text_BD)
