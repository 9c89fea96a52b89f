"""The image tower of a CLIP ConvNeXt: a folder as `clip` reads it, whose image half is timm's network."""

from __future__ import annotations

from pathlib import Path

import open_clip
from torch import Tensor, nn

from nullscope.backbones.clip import WEIGHTS_FILE


class ConvNeXt(nn.Module):
    """The frozen trunk before CLIP's projection, its last norm included, (B, 3, H, W) normalised to (B, K)."""

    def __init__(self, directory: Path) -> None:
        """Raises `ValueError` if ``directory`` holds no such CLIP."""
        super().__init__()
        if not (Path(directory) / WEIGHTS_FILE).is_file():
            raise ValueError(f"{directory}: no {WEIGHTS_FILE}; encoders with a ConvNeXt are -S encoder=vit_l_14_convnext")
        image_half = open_clip.create_model(f"local-dir:{directory}", precision="fp32", weights_only=True).visual
        if not hasattr(image_half, "trunk") or not hasattr(image_half.trunk, "stages"):
            raise ValueError(f"{directory}: expected a CLIP whose image tower is a ConvNeXt, found {type(image_half).__name__}")
        self.trunk = image_half.trunk.requires_grad_(False).eval()
        self.trunk.head.global_pool = self.trunk.head.flatten = nn.Identity()  # AIDE pools behind the last norm, not before
        self.width = self.trunk.num_features

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, averaged over the pixels."""
        return self.trunk(x).mean((2, 3))

    def train(self, mode: bool = True) -> ConvNeXt:
        """Stay as in testing: its stochastic depth would drop blocks of a frozen network."""
        return super().train(False)
