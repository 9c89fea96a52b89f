"""What NS-Net, Advanced NS-Net, DGS-Net and their baseline share: a LoRA'd CLIP image tower that sees shuffled patch mosaics.

B images, D embedding width, M side of the mosaic in pixels, C its cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from nullscope.encoders.attention import LoraParams, add_lora
from nullscope.encoders.clip import clip_facts, load_image_tower
from nullscope.ops.patches import PatchParams, permute_patches
from nullscope.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, flip_where, normalise

Statistics = Literal["clip", "imagenet"]  # what images are normalised with; the code of DGS-Net takes ImageNet's for CLIP


class LoraClip(nn.Module):
    """The frozen CLIP of ``directory`` with a trainable adapter on q, k and v of every block."""

    def __init__(self, directory: Path, lora: LoraParams, statistics: Statistics, patches: PatchParams) -> None:
        super().__init__()
        facts = clip_facts(directory)
        if facts.image_px != patches.mosaic_px:
            raise ValueError(
                f"CLIP expects images of {facts.image_px} px, a mosaic of {patches.grid} x {patches.grid} patches of "
                f"{patches.patch_px} px has {patches.mosaic_px}; choose the encoder and patches.patch_px together"
            )
        self.width, self.grid = facts.width, patches.grid
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if statistics == "imagenet" else (facts.mean, facts.std)
        self.tower = load_image_tower(directory)
        add_lora(self.tower, lora)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the image features, (B, D) not normalised.

        ``inputs`` is what `nullscope.data.views.PatchMosaic` gives: ``image`` (B, 3, M, M) uint8, ``order`` (B, C) and
        ``flip`` (B,).
        """
        mosaic_BCHW = permute_patches(inputs["image"], inputs["order"], self.grid)
        return self.tower(normalise(flip_where(mosaic_BCHW, inputs["flip"]), self.mean, self.std))
