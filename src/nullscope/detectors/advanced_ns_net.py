"""Advanced NS-Net: take every image's feature off a direction that is learnt from its own caption.

"Improving Generalizable AI-Generated Image Detection via Learned Semantic Null-Space Projections", equations 11 to 21; notebook
NeelRambhia/Advanced-NSNet@6bd22a7 ``src/Advanced_NSNET.ipynb``. B images, D embedding width, H width of the head.

    u, v = E_I(mosaic), E_T(caption)               LoRA'd image tower, frozen text tower; (B, D), not normalised; eqs. 11, 12
    m = LayerNorm(v + W2 ReLU(W1 v + b1) + b2)     the semantic mapper, (B, D): eq. 14
    r = u - m <m, u> / max(|m|^2, 1e-8)            off the caption's own direction, (B, D): eq. 16
    h = W4 ReLU(W3 r + b3) + b4,  f = h / |h|      the projection head, (B, H): eq. 17
    logit = w f + b                                (B,): eq. 19
    L_align = mean_i |m_i - u_i|^2                 u is held fixed, so only the mapper learns from it; eq. 20
    L = L_con(f) + alpha L_bce + beta L_align      alpha = 0.2, beta = 0.3; eqs. 18 and 21

A test image needs its caption. L_align makes m a prediction of u from the caption. So the projection removes all that the caption
predicts of u, and not only what it says. In the embedded world that is two thirds of |u|^2. With beta = 0 all captions come to
share one direction, and a fifteenth of |u|^2 is removed.

The paper is the default; conf/detectors/advanced_ns_net_notebook.yaml is the authors' code, which differs in five places:

- no adapter: ``loralib`` is imported and never used (``lora: null``);
- L_con takes the log of the *sum* over an anchor's positives, eq. 18 the mean of their logs, as NS-Net (``positives``);
- the classifier reads h, eq. 19 says f (``classify``);
- L_align is a mean over dimensions too, 1 / D of eq. 20 (``align``);
- the mapper has dropout (``mapper_dropout``).

Some of the notebook is left out: empty captions (here a missing one is an error), test images from the training folders, the
choice of the epoch by test AP, and its own selection of patches (all detectors here share one). The paper also describes a
projector from all captions (eq. 15); that is NS-Net. It does not name optimiser, tau and adapter: Adam and 0.07 are taken from
the code, the adapter from NS-Net.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.attention import LoraParams
from nullscope.detectors import base, clip
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.shards.batch import Batch

EPSILON = 1e-8  # of the projection (paper, "stability") and of the notebook's contrastive loss


class Config(clip.ClipParams):
    """Parameters of Advanced NS-Net."""

    lora: LoraParams | None  # None: the frozen tower
    mapper_hidden: PositiveInt  # rows of W1; 1024 in the paper
    mapper_dropout: float = Field(ge=0, lt=1)  # after its ReLU
    head_width: PositiveInt  # H; 512 in the paper
    classify: Literal["unit", "raw"]  # the classifier reads f (eq. 19) or h
    positives: Literal["mean_of_logs", "log_of_sum"]  # L_out (eq. 18) or L_in of Khosla et al. 2020
    temperature: PositiveFloat  # tau of eq. 18
    bce_weight: PositiveFloat  # alpha of eq. 21
    align: Literal["vector", "element"]  # squared error per image (eq. 20) or per number
    align_weight: NonNegativeFloat  # beta of eq. 21


class SemanticMapper(nn.Module):
    """A residual MLP on text features."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, text_BD: Tensor) -> Tensor:
        """(B, D) -> (B, D): eq. 14."""
        return self.norm(text_BD + self.mlp(text_BD))


class Detector(clip.ClipDetector):
    """A LoRA'd CLIP image tower, a mapper of captions, the projection of each image off its own, and a head."""

    needs_captions = True
    captions_at_inference = True

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, params.lora)
        width, head_width = self.clip.width, params.head_width
        self.mapper = SemanticMapper(width, params.mapper_hidden, params.mapper_dropout)
        self.head = nn.Sequential(nn.Linear(width, head_width), nn.ReLU(), nn.Linear(head_width, head_width))
        self.classifier = nn.Linear(head_width, 1)

    def features(self, batch: Batch) -> Tensor:
        """Return what the head makes of the image features without their semantics, (B, H): f, or h."""
        return self.decoupled(self.clip(batch.inputs).float(), self.semantics(batch))

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.classifier(feature_BK).squeeze(1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of eq. 21, weighted: ``contrastive``, ``bce`` and ``align``."""
        image_BD = self.clip(batch.inputs).float()
        with torch.autocast(image_BD.device.type, enabled=False):  # bfloat16 would leave 0.4 % of what is removed
            semantic_BD = self.semantics(batch)
            feature_BH = self.decoupled(image_BD, semantic_BD)
            bce = F.binary_cross_entropy_with_logits(self.classify(feature_BH), batch.is_fake_B)
            return {
                "contrastive": self.contrastive(feature_BH, batch.is_fake_B),
                "bce": self.params.bce_weight * bce,
                "align": self.params.align_weight * self.alignment(semantic_BD, image_BD),
            }

    def semantics(self, batch: Batch) -> Tensor:
        """Return the direction m of every caption, (B, D). Raises `ValueError` if the batch has no captions."""
        if batch.text_BD is None:
            raise ValueError("Advanced NS-Net: expected the captions of the images, found none; a test image needs one too")
        return self.mapper(batch.text_BD)

    def decoupled(self, image_BD: Tensor, semantic_BD: Tensor) -> Tensor:
        """Return the head's output on the projected features, (B, H): eqs. 16 and 17."""
        feature_BH = self.head(off_own(image_BD, semantic_BD))
        return F.normalize(feature_BH, dim=1) if self.params.classify == "unit" else feature_BH

    def contrastive(self, feature_BH: Tensor, is_fake_B: Tensor) -> Tensor:
        """Return L_con, a scalar; features are brought to unit length where they are not yet."""
        loss = supervised_contrastive_loss if self.params.positives == "mean_of_logs" else log_of_sum_loss
        return loss(feature_BH, is_fake_B, temperature=self.params.temperature)

    def alignment(self, semantic_BD: Tensor, image_BD: Tensor) -> Tensor:
        """Return L_align, a scalar: eq. 20."""
        error = F.mse_loss(semantic_BD, image_BD.detach())
        return error * image_BD.shape[1] if self.params.align == "vector" else error


def off_own(image_BD: Tensor, semantic_BD: Tensor) -> Tensor:
    """Project every feature off its own direction: eq. 16, (B, D), (B, D) -> (B, D). A direction of zero removes nothing."""
    squared_B1 = semantic_BD.square().sum(1, keepdim=True).clamp(min=EPSILON)
    return image_BD - semantic_BD * ((semantic_BD * image_BD).sum(1, keepdim=True) / squared_B1)


def log_of_sum_loss(feature_BH: Tensor, is_fake_B: Tensor, *, temperature: float) -> Tensor:
    """Return the contrastive loss of the notebook: the mean over anchors of -log (positives + 1e-8) / (others + 1e-8).

    Both are sums of exp(similarity / temperature). An anchor without a positive counts, with about 18 + log(others).
    """
    unit_BH = F.normalize(feature_BH, dim=1)
    other_BB = ~torch.eye(len(unit_BH), dtype=torch.bool, device=unit_BH.device)
    positive_BB = (is_fake_B[:, None] == is_fake_B[None]) & other_BB
    similarity_BB = unit_BH @ unit_BH.T / temperature

    def log_sum(among_BB: Tensor) -> Tensor:  # the column that is padded is the 1e-8
        return F.pad(similarity_BB.masked_fill(~among_BB, -math.inf), (0, 1), value=math.log(EPSILON)).logsumexp(1)

    return (log_sum(other_BB) - log_sum(positive_BB)).mean()
