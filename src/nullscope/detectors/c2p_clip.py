"""C2P-CLIP (Tan et al. 2024, "Injecting Category Common Prompt in CLIP to Enhance Generalization in Deepfake Detection").

A CLIP learns the two categories as a concept of its own. In training every caption begins with a word for its image's category,
the image is drawn to that caption, and a linear layer tells the categories apart. In testing there is no caption, and the
adapters are merged: it costs what a plain CLIP costs.

    f = E_I(image) / |E_I(image)|                        (B, D)   E_I: the image tower with LoRA on q, k and v
    t = E_T("Deepfake a photo of ...") / |...|           (B, D)   frozen; the text features of the stage `embed`
    logit = w f + b                                      (B,)
    L = L_bce + lambda (CE(s f t^T) + CE(s t f^T)) / 2   the loss of CLIP, s = 100, its trained scale

*What is not published.* The network, its test and its weights are (chuangchuangtan/C2P-CLIP-DeepfakeDetection), the training is
not. LoRA is that of NS-Net and DGS-Net: rank 6, alpha 6, dropout 0.8. Adam at 4e-4, 128 images a step, one epoch, the words
(parameter `encoder.prompts`), s and lambda = 1 are our choice, which no source that we have confirms. Images of a batch with the
same caption share the place of the right answer: the loss of CLIP would push an image off another one's equal caption. Captions
are BLIP's, as in DGS-Net's retraining; the authors' are ClipCap's.

*Input.* The shorter side is resized to the tower's; in training a random window, in testing the central one. CLIP's statistics.

*Presets.* ``c2p_clip_official``. ``c2p_clip`` alone has a schedule for the embedded world.

B images, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.lora import LoraLayer
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.attention import LoraParams
from nullscope.backbones.clip import clip_facts
from nullscope.backbones.published import TEXT_HALF, hub_name, hub_tensors, low_rank
from nullscope.detectors import base, clip
from nullscope.images.augmentation import shortened
from nullscope.images.transforms import window
from nullscope.shards.batch import Batch

LEFT = 1e-4  # of the largest weight: what may be left of a checkpoint's difference to the tower behind an adapter


class Config(clip.TowerParams):
    """Parameters of C2P-CLIP."""

    lora: LoraParams
    contrastive_weight: NonNegativeFloat  # lambda
    scale: PositiveFloat  # s


@dataclass(frozen=True)
class ShortenedCrop:
    """A window of an image whose shorter side came to the window's first."""

    side_px: int
    flip: float
    min_side_px: int
    kind: ClassVar[str] = "images"

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, P, P) uint8 and ``flip`` () bool."""
        image_HWC = window(shortened(image_HWC, self.side_px), self.side_px, rng if training else None)
        image = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        return {"image": image, "flip": np.array(training and rng.random() < self.flip)}


class Detector(clip.ClipDetector):
    """C2P-CLIP."""

    needs_captions = True
    prompted = True
    official_constants = TEXT_HALF

    def __init__(self, params: Config, context: base.Context) -> None:
        transform = ShortenedCrop(clip_facts(context.backbone(clip.CLIP)).image_px, params.flip, context.patches.patch_px)
        super().__init__(params, context, params.lora, transform)
        self.head = nn.Linear(self.clip.width, 1)
        nn.init.normal_(self.head.weight, std=0.02)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features of unit length, (B, D)."""
        return F.normalize(self.clip(batch.inputs).float(), dim=1)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits and the weighted one between images and captions."""
        feature_BD = self.features(batch)
        terms = {"bce": F.binary_cross_entropy_with_logits(self.classify(feature_BD), batch.is_fake_B)}
        if self.params.contrastive_weight:
            loss = image_text_loss(feature_BD, batch.text_BD, self.params.scale)
            terms["contrastive"] = self.params.contrastive_weight * loss
        return terms

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return what the published checkpoint calls a tensor; what it does not hold keeps its name."""
        return f"model.{name.replace('head.', 'fc.')}" if name.startswith("head.") else name

    def official_frozen(self) -> dict[str, Tensor]:
        """Return the frozen tensors that a checkpoint holds too, under its names."""
        return {f"model.{name}": tensor for name, tensor in hub_tensors(self.clip.tower).items()}

    def from_official(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, its merged adapters apart from the frozen weights again.

        Raises `ValueError` where the difference to the frozen weights is more than adapters of this rank can hold.
        """
        tensors = dict(tensors)
        for name, layer in self.clip.tower.named_modules():
            if isinstance(layer, LoraLayer):
                published, own = f"model.{hub_name(f'{name}.weight')}", f"clip.tower.{name}"
                frozen = layer.get_base_layer().weight
                a, b = _adapter(layer, published, tensors.get(published), frozen, self.params.lora.rank)
                tensors |= {published: frozen, f"{own}.lora_A.default.weight": a, f"{own}.lora_B.default.weight": b}
        return tensors


def _adapter(layer: LoraLayer, name: str, merged: Tensor | None, frozen: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (r, n) and B (m, r) with W + s B A = merged; those of the layer, which change nothing, where W is merged."""
    if merged is None or merged.shape != frozen.shape:
        raise ValueError(
            f"expected {name} of shape {tuple(frozen.shape)}, found {None if merged is None else tuple(merged.shape)}"
        )
    if torch.equal(merged, frozen):
        return layer.lora_A["default"].weight, layer.lora_B["default"].weight
    u, s, v = low_rank(merged - frozen, rank)
    left = (merged - frozen - (u * s) @ v).abs().max() / frozen.abs().max()
    if left > LEFT:
        raise ValueError(
            f"{name} is not the weight of --backbone clip with an adapter of rank {rank}: {left:.1e} of it is left; is that the "
            "CLIP it was trained on?"
        )
    return v, u * s / layer.scaling["default"]


def image_text_loss(image_BD: Tensor, text_BD: Tensor, scale: float) -> Tensor:
    """Return CLIP's loss of images, of unit length, and captions: a scalar. Equal captions share the right answer."""
    with torch.autocast(image_BD.device.type, enabled=False):  # bfloat16 would round similarities times 100 by 0.4
        text_BD = F.normalize(text_BD.float(), dim=1)
        logits_BB = scale * image_BD.float() @ text_BD.T
        same_BB = (text_BD[:, None] == text_BD[None]).all(2).float()
        target_BB = same_BB / same_BB.sum(1, keepdim=True)
        return (F.cross_entropy(logits_BB, target_BB) + F.cross_entropy(logits_BB.T, target_BB)) / 2
