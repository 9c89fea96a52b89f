"""VIB-Net (Zhang et al. 2025, "Towards Universal AI-Generated Image Detection by Variational Information Bottleneck Network").

A variational information bottleneck on the image feature of a frozen CLIP: noise in a narrow layer, and a price for every bit
that passes it, so that what tells nothing about the label is left behind.

    h = W2 relu(W1 relu(W0 drop(f))), f = E_I(image)      (B, 2 Z); f frozen
    mu, sigma = h[:Z], softplus(h[Z:] - 5)                (B, Z) each
    z = mu + sigma e, e ~ N(0, 1)                         in training; z = mu in testing
    logit = w z + b                                       (B,)
    L = L_bce + beta KL(N(mu, sigma^2) || N(0, 1))        KL: summed over Z, mean over B

*Deterministic.* The published network draws e in testing too, without a seed: one image has another score every time. Here a
test image gets z = mu. Its logit is the mean of theirs, for the last layer is linear.

*Input.* A random window of the tower's side in training, the central one in testing, nothing resized, what a smaller image lacks
is black; CLIP's statistics. ``input`` and ``null_space`` are the plug-and-play experiments of NS-Net's tables 7 and 8.

*Recipe.* The training code was never released (oceanzhf/VIBAIGCDetect has the network and its test). What its options name is
taken: batches of 256, no weight decay, one image in ten blurred, one in ten compressed; the rate of UnivFD. beta is not
published: 1e-3, with which both terms begin at the same size, for sigma begins near 0.007, where the KL is about 4.5 for each of
the Z numbers.

*Presets.* ``vib_net_official``. ``vib_net`` alone has a narrower bottleneck and a schedule for the embedded world.

*Not copied.* The test keeps 100 images of every class.

B images, D embedding width, Z width of the bottleneck.
"""

from __future__ import annotations

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.published import TEXT_HALF, openai_tensors
from nullscope.detectors import base, clip
from nullscope.shards.batch import Batch

SHIFT = 5.0  # off the numbers that become sigma, so that it begins small


class Config(clip.AugmentedParams):
    """Parameters of VIB-Net."""

    hidden: PositiveInt  # width of W0 and W1; 1024 in the published network
    bottleneck: PositiveInt  # Z; 256 in the published network
    dropout: float = Field(ge=0, lt=1)  # of the image feature
    beta: NonNegativeFloat


class Detector(clip.FeatureDetector):
    """VIB-Net."""

    official_constants = TEXT_HALF

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, lora=None)
        self.dropout = nn.Dropout(params.dropout)
        self.fc_1 = nn.Linear(self.clip.width, params.hidden)
        self.fc_2 = nn.Linear(params.hidden, params.hidden)
        self.fc_3 = nn.Linear(params.hidden, 2 * params.bottleneck)
        self.decode = nn.Linear(params.bottleneck, 1)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features, (B, D); nothing in front of the bottleneck trains."""
        with torch.no_grad():
            return super().features(batch)

    def bottleneck(self, feature_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and sigma, (B, Z) each."""
        hidden = F.relu(self.fc_2(F.relu(self.fc_1(self.dropout(feature_BD)))))
        mean_BZ, spread_BZ = self.fc_3(hidden).float().chunk(2, dim=1)
        return mean_BZ, F.softplus(spread_BZ - SHIFT)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits of mu, (B,)."""
        return self.decode(self.bottleneck(feature_BK)[0]).squeeze(1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of noisy z, and the weighted divergence."""
        mean_BZ, sigma_BZ = self.bottleneck(self.features(batch))
        logit_B = self.decode(mean_BZ + sigma_BZ * torch.randn_like(mean_BZ)).squeeze(1)
        bce = F.binary_cross_entropy_with_logits(logit_B, batch.is_fake_B)
        return {"bce": bce, "kl": self.params.beta * divergence(mean_BZ, sigma_BZ)}

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return what the published checkpoint calls the tensor that `kept_state` calls ``name``: the same."""
        return name

    def official_frozen(self) -> dict[str, Tensor]:
        """Return the frozen tensors that a checkpoint may hold too, under its names."""
        return {f"model.{name}": tensor for name, tensor in openai_tensors(self.clip.tower).items()}


def divergence(mean_BZ: Tensor, sigma_BZ: Tensor) -> Tensor:
    """Return KL(N(mu, sigma^2) || N(0, 1)) in nats, summed over the bottleneck, mean over the images."""
    return -0.5 * (1 + 2 * sigma_BZ.log() - mean_BZ.square() - sigma_BZ.square()).sum(1).mean()
