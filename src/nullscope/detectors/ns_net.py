"""NS-Net: remove from CLIP's image feature what a caption could say, and learn real against fake on what is left.

NS-Net, equations 1 to 12 of the paper; there is no official code. B images, D embedding width, N captions,
k removed directions.

    f = E_I(mosaic)                      image feature of the LoRA'd CLIP, (B, D)
    V = E_T(captions)                    text features of BLIP captions, rows; frozen, (N, D)
    u = f - (f B) B^T                    B: orthonormal basis of the row space of V, (D, k): the null-space projection, eqs. 5-10
    logit = w u + b
    L = (1 - lambda) L_con(u) + lambda L_bce, lambda = 0.2                  eqs. 11, 12

What the paper leaves open, and what is done here:

- *Which captions make V.* ``global``: the leading directions of all training captions, by rank or energy (288,000 captions span
  all 768 dimensions, so the exact null space is empty). This is the default, because a test image then needs no caption and its
  score depends on nothing else. ``batch``: equations 5 to 9 on the captions of the mini-batch, as they are written. ``sample``:
  each image off its own caption, rank one. With ``batch`` and ``sample`` a test image needs its caption; the paper does not
  mention that. A score must depend on its image alone, so ``batch`` treats a test image as a batch of one.
- *Text features* are normalised to unit length, so that every caption counts the same.
- *Temperature* of L_con: 0.07 (the notebooks of Advanced NS-Net). Features are normalised inside the loss.
- *L_con.* The paper calls it self-supervised and cites SimCLR, but its formula is the supervised one. The formula is followed.
"""

from __future__ import annotations

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from nullscope.backbones.attention import LoraParams
from nullscope.detectors import base, clip
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.shards.batch import Batch


class Config(clip.FeatureParams):
    """Parameters of NS-Net."""

    lora: LoraParams
    bce_weight: float = Field(ge=0, le=1)  # lambda of eq. 12; 1 leaves the contrastive loss out
    temperature: PositiveFloat  # tau of eq. 11


class Detector(clip.LinearDetector):
    """A LoRA'd CLIP image tower, the null-space projection (eqs. 5-10, `nullscope.ops.null_space`) and a linear head."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, params.lora)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return both terms of eq. 12, weighted: ``bce`` and ``contrastive``."""
        feature_BD = self.features(batch)
        weight = self.params.bce_weight
        terms = {"bce": weight * F.binary_cross_entropy_with_logits(self.classify(feature_BD), batch.is_fake_B)}
        if weight < 1:
            loss = supervised_contrastive_loss(feature_BD, batch.is_fake_B, temperature=self.params.temperature)
            terms["contrastive"] = (1 - weight) * loss
        return terms
