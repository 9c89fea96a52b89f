"""The supervised contrastive loss (Khosla et al. 2020; NS-Net, equation 11). B images, D embedding width."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def supervised_contrastive_loss(feature_BD: Tensor, is_fake_B: Tensor, *, temperature: float) -> Tensor:
    """Return the mean over anchors of the mean over positives of -log softmax of the similarities: a scalar.

    Features (B, D) are normalised to unit length first (the paper does not say so; without it the exponentials overflow). The
    positives of an anchor are the other images of its label; the denominator runs over all other images. An anchor with no
    positive in the batch has no term, and a batch without any pair is a loss of zero.
    """
    with torch.autocast(feature_BD.device.type, enabled=False):  # similarities of bfloat16 divided by 0.07 are off by 0.06
        feature_BD = feature_BD.to(torch.promote_types(feature_BD.dtype, torch.float32))
        unit_BD = F.normalize(feature_BD, dim=1)
        itself = torch.eye(len(unit_BD), dtype=torch.bool, device=unit_BD.device)
        similarity_BB = (unit_BD @ unit_BD.T / temperature).masked_fill(itself, float("-inf"))
        log_softmax_BB = similarity_BB.log_softmax(dim=1).masked_fill(itself, 0.0)
        positive_BB = (is_fake_B[:, None] == is_fake_B[None]) & ~itself
        positives_B = positive_BB.sum(1)
        anchor_B = -(log_softmax_BB * positive_BB).sum(1) / positives_B.clamp(min=1)
        return anchor_B.sum() / (positives_B > 0).sum().clamp(min=1)
