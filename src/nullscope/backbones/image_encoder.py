"""What all detectors on CLIP's image feature share: the frozen image tower of a run, with or without a LoRA adapter.

B images, D embedding width, P side of the tower's input in pixels, C cells of a mosaic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from nullscope.backbones.attention import LoraParams, add_lora, are_adapters_off, is_merged, without_adapters
from nullscope.backbones.clip import clip_facts, load_image_tower
from nullscope.backbones.sharing import Encoder
from nullscope.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, flip_where, laid_out, normalise

Statistics = Literal["clip", "imagenet"]  # what images are normalised with; the code of DGS-Net takes ImageNet's for CLIP


class ImageEncoder(Encoder):
    """The frozen image tower of the CLIP in ``directory``; with ``lora``, a trainable adapter on q, k and v of its blocks."""

    rows_apart = True

    def __init__(self, directory: Path, lora: LoraParams | None, statistics: Statistics) -> None:
        super().__init__()
        facts = clip_facts(directory)
        self.width = facts.width
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if statistics == "imagenet" else (facts.mean, facts.std)
        self.tower = load_image_tower(directory)
        if lora is not None:
            add_lora(self.tower, lora)

    def encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the image features of some rows, (B_r, D), not normalised."""
        return self.tower(self.pixels(inputs))

    def compile_network(self) -> None:
        """Let torch.compile make the tower's kernels, at the first forward pass; names and weights stay.

        Random numbers are drawn as without it: its own would drop other entries, and that is another training.
        """
        torch._inductor.config.fallback_random = True
        self.tower.compile()

    def pixels(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return what the tower sees, (B, 3, P, P) float32.

        ``inputs`` holds ``image`` (B, 3, P, P) uint8, ``flip`` (B,) bool and, of a mosaic, ``order`` (B, C): its cells are laid
        out anew.
        """
        return normalise(flip_where(laid_out(inputs), inputs["flip"]), self.mean, self.std)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that features are trained by: the adapters, where they are on."""
        return [] if are_adapters_off() else super().trained()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it the tower is the pre-trained one: its adapters are off. No second copy of the weights is needed.

        Not for a tower whose adapters were merged.
        """
        assert not is_merged(self.tower), "the adapters of this tower were merged: the frozen tower is gone"
        with without_adapters():
            yield
