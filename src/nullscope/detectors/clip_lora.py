"""CLIP-LoRA: the plain baseline of NS-Net (table 4, row 1) and of DGS-Net (tables 4 and 9, row 1).

A linear head on the image feature of a CLIP whose image tower carries LoRA on q, k and v, trained with binary cross-entropy: no
caption, no projection. Here it sees what the methods see, a shuffled mosaic of patches chosen by spectral entropy.
``input: crop`` gives it the image itself (NS-Net's row 1), ``null_space`` the projection of NS-Net (its plug-and-play
experiments).

    f = E_I(image)         (B, D), not normalised
    logit = w f + b        (B,)

LoRA rank 6, alpha 6, dropout 0.8 (NS-Net, "Implementation Details"; HorizonTEL/DGS-Net@1aed871 ``options/base_options.py``).
B images, D embedding width.
"""

from __future__ import annotations

from nullscope.backbones.attention import LoraParams
from nullscope.detectors import base, clip


class Config(clip.FeatureParams):
    """Parameters of CLIP-LoRA."""

    lora: LoraParams


class Detector(clip.LinearDetector):
    """A LoRA'd CLIP image tower and a linear head, trained as the base class has it: Adam, binary cross-entropy."""

    def __init__(self, params: Config, context: base.Context) -> None:
        super().__init__(params, context, params.lora)
