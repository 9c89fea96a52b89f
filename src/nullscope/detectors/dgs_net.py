"""DGS-Net: fine-tune CLIP, but edit the gradient at its image feature.

"Distillation-guided Gradient Surgery Network", equations 5 to 16; code HorizonTEL/DGS-Net@1aed871. The gradient is changed in two
ways. The direction in which a classifier of captions would move is taken out (orthogonal suppression). The direction in which a
classifier on the frozen CLIP would move is added (prior alignment). B images, D embedding width.

    f, t = E_I(mosaic), E_T(caption)                   LoRA'd image tower, frozen text tower; (B, D), not normalised
    f0 = E_I(mosaic) with its adapters off             the teacher: the same tower, not a second copy
    g_task, g_text, g_img                              gradients of three cross-entropies: by f, by t, by f0
    h = max(g_text, 0) / |max(g_text, 0)|              the harmful direction, eqs. 9 and 10
    g = g_task - h <h, g_task> + lambda min(g_img, 0)  the gradient at f, eqs. 11, 12 and 16; lambda = 0.2

There are two phases, as in the code; the paper does not say so. ``frozen_head`` trains the teacher's head on the frozen tower.
``main`` trains the adapters, the head and the head of the captions. A test image needs no caption.

The paper is the default; conf/detectors/dgs_net_official.yaml is the code, which differs in three places:

- it projects the *sum* of both parts, eq. 16 the task's part only (``suppress``);
- L_align is a mean over the batch of what carries 1 / B already, so its weight is lambda / B (``prior_scale``): 0.2 / 32;
- it adds 1e-6 to the norm of max(g_text, 0), which is of order 1e-3 (``epsilon``).

With linear heads g_text and g_img are (sigma - y) times a weight vector. So all fakes share one h, and all reals another. A
caption matters only through the weights of the text head.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.attention import LoraParams
from nullscope.detectors import base, clip
from nullscope.shards.batch import Batch

Part = Literal["positive", "negative", "all"]  # of a gradient, coordinate by coordinate


class Config(clip.FeatureParams):
    """Parameters of DGS-Net. ``null_space``, of f and f0, is not part of the method, which leaves the feature whole."""

    lora: LoraParams
    teacher_epochs: PositiveInt  # of the phase `frozen_head`; 3 in the code
    teacher_lr: PositiveFloat
    suppress: Literal["none", "task", "sum"]  # which gradient is taken off the harmful direction
    harmful: Part  # of the text gradient; the method: positive
    helpful: Part  # of the frozen head's gradient; the method: negative
    prior_weight: NonNegativeFloat  # lambda; 0 leaves the prior alignment out
    prior_scale: Literal["sample", "batch"]  # lambda as in eq. 16, or lambda / B as in the code
    epsilon: NonNegativeFloat  # added to the norm of the harmful gradient


class Detector(clip.LinearDetector):
    """A LoRA'd CLIP image tower and a linear head; in training a head on captions and one on the frozen feature beside it."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, params.lora)
        self.needs_captions = True
        self.text_head = nn.Linear(self.clip.width, 1)
        self.frozen_head = nn.Linear(self.clip.width, 1).requires_grad_(params.prior_weight > 0)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features f, (B, D)."""
        return super().features(batch).to(self.head.weight.dtype)  # float32, under autocast too

    def phases(self) -> list[base.Phase]:
        """Return ``frozen_head``, where there is a prior to align with, and ``main``."""
        teacher = list(self.frozen_head.parameters())
        main = base.Phase("main", self.trainable(but=teacher), self.params.epochs, self.params.lr)
        if not self.params.prior_weight:
            return [main]
        return [base.Phase("frozen_head", teacher, self.params.teacher_epochs, self.params.teacher_lr), main]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_img, L_text and lambda L_align (eqs. 13, 15): ``bce``, ``text``, ``align``; at first ``frozen_bce`` alone.

        The gradient of their sum at f is eq. 16: hooks edit it on its way into the tower.
        """
        frozen_BD = self.frozen_features(batch) if self.params.prior_weight else None  # before f's graph takes its memory
        if self.phase == "frozen_head":
            return {"frozen_bce": head_loss(self.frozen_head, frozen_BD, batch.is_fake_B)}
        feature_BD = self.features(batch)
        text_loss, harm_BD = self.harm(batch.text_BD, batch.is_fake_B)
        if self.params.suppress == "sum":
            feature_BD = off_direction(feature_BD, harm_BD)
        task_BD = off_direction(feature_BD, harm_BD) if self.params.suppress == "task" else feature_BD
        terms = {"bce": head_loss(self.head, task_BD, batch.is_fake_B), "text": text_loss}
        if frozen_BD is not None:
            help_BD = self.help(frozen_BD, batch.is_fake_B)
            share = 1.0 if self.params.prior_scale == "sample" else 1 / len(feature_BD)
            terms["align"] = self.params.prior_weight * share * (feature_BD * help_BD).sum()
        return terms

    def frozen_features(self, batch: Batch) -> Tensor:
        """Return the teacher's features f0, (B, D), without a graph."""
        with torch.no_grad(), self.clip.frozen():
            return self.features(batch)

    def harm(self, text_BD: Tensor, is_fake_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the captions and the harmful directions, eqs. 9 and 10: (B, D), of length 1, or 0 where none is."""
        text_BD = text_BD.detach().requires_grad_()
        loss = head_loss(self.text_head, text_BD, is_fake_B)
        harm_BD = part_of(torch.autograd.grad(loss, text_BD, retain_graph=True)[0], self.params.harmful)
        norm_B1 = harm_BD.norm(dim=1, keepdim=True) + self.params.epsilon
        return loss, torch.where(norm_B1 > 0, harm_BD / norm_B1, 0.0)

    def help(self, frozen_BD: Tensor, is_fake_B: Tensor) -> Tensor:
        """Return the helpful part of the teacher's gradient, eq. 12, (B, D); like g_task it carries the 1 / B of a mean."""
        frozen_BD = frozen_BD.detach().requires_grad_()
        loss = head_loss(self.frozen_head, frozen_BD, is_fake_B)
        return part_of(torch.autograd.grad(loss, frozen_BD)[0], self.params.helpful)


def head_loss(head: nn.Linear, feature_BD: Tensor, is_fake_B: Tensor) -> Tensor:
    """Return the binary cross-entropy of a head's logits, a scalar; in float32 under autocast too: the surgery is exact."""
    with torch.autocast(feature_BD.device.type, enabled=False):
        return F.binary_cross_entropy_with_logits(head(feature_BD).squeeze(1), is_fake_B)


def part_of(gradient_BD: Tensor, part: Part) -> Tensor:
    """Return the positive or the negative coordinates of gradients, the others zero; or all of them."""
    if part == "all":
        return gradient_BD
    return gradient_BD.clamp(min=0) if part == "positive" else gradient_BD.clamp(max=0)


def off_direction(feature_BD: Tensor, unit_BD: Tensor) -> Tensor:
    """Return the features as they are; the gradient that comes back through them loses its part along ``unit_BD`` (eq. 11)."""
    passed_BD = feature_BD.view_as(feature_BD)
    passed_BD.register_hook(lambda gradient_BD: gradient_BD - (gradient_BD * unit_BD).sum(1, keepdim=True) * unit_BD)
    return passed_BD
