"""UnivFD (Ojha et al. 2023, "Towards Universal Fake Image Detectors that Generalize Across Generative Models").

A linear layer on the image feature of a frozen CLIP: what generated images have in common was in the pre-trained feature.

    f = E_I(image)         (B, D), not normalised; frozen
    logit = w f + b        (B,)

*Input.* In training the shorter side is resized to 256, some images are blurred (sigma uniform from 0 to 3 px) and some go
through JPEG (quality uniform from 30 to 100), and a random window of the tower's side is cut. In testing nothing is resized: the
central window, where what a smaller image lacks is black. ``input: resize`` squashes whole images, ``patches`` selects patches;
neither is augmented.

*Recipe.* Adam at 1e-4 without weight decay (the authors' AdamW is the same then), 256 images a step. ``null_space`` is the
plug-and-play experiment of NS-Net's table 8.

*Presets.* ``univfd_official``: crops, CLIP's statistics, half of the images blurred, half compressed
(WisconsinAIVision/UniversalFakeDetect). ``univfd_aigibench``: images squashed to 224, ImageNet's statistics, no augmentation, the
rate times 0.9 after every 10 of 101 epochs (HorizonTEL/AIGIBench). A head that was trained with one of them is of no use with the
other. ``univfd`` alone has a schedule for the embedded world. `linear_probe` is the same detector with the input and schedule of
NS-Net.

*Not copied.* The authors stop early by the accuracy on a test set, keep 1000 images of every class, and train CLIP too unless
told otherwise. AIGIBench's code as published masks training images; its published rows are without.

B images, D embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nullscope.backbones.published import TEXT_HALF, openai_tensors
from nullscope.detectors import base, clip
from nullscope.shards.batch import Batch


class Config(clip.AugmentedParams, base.SteppedParams):
    """Parameters of UnivFD."""


class Detector(clip.LinearDetector):
    """UnivFD."""

    official_constants = TEXT_HALF

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, lora=None)
        nn.init.normal_(self.head.weight, std=0.02)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features, (B, D); nothing in front of the head trains."""
        with torch.no_grad():
            return super().features(batch)

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return what the published checkpoint calls the tensor that `kept_state` calls ``name``."""
        return name.replace("head.", "fc.")

    def official_frozen(self) -> dict[str, Tensor]:
        """Return the frozen tensors that a checkpoint may hold too, under its names."""
        return {f"model.{name}": tensor for name, tensor in openai_tensors(self.clip.tower).items()}

    def from_official(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint; the authors released the layer alone, as ``weight`` and ``bias``."""
        bare = tensors.keys() == {"weight", "bias"}
        return {f"fc.{name}": tensor for name, tensor in tensors.items()} if bare else tensors
