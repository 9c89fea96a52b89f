"""Captions of single images, and their text features, for a detector that reads captions at inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nullscope.backbones.blip import Captioner, CaptionParams, PixelReader
from nullscope.backbones.clip import load_text_encoder
from nullscope.core.config import validate


class CaptionWriter:
    """A frozen BLIP and a frozen text tower."""

    def __init__(self, blip: Path, clip: Path, params: dict[str, Any], device: torch.device) -> None:
        """``params``: those of the section ``caption`` that the detector was trained with."""
        self.reader = PixelReader(blip)
        self.params = validate("caption", params, CaptionParams)
        self.captioner = Captioner(blip, self.params, device)
        self._encode = load_text_encoder(clip, device)

    def captions(self, pixels: Sequence[Tensor]) -> list[str]:
        """Return a caption of every image; (3, S, S) uint8 each, of `reader`."""
        size, found = self.params.batch_size, []
        for start in range(0, len(pixels), size):
            found += self.captioner.caption(torch.stack(list(pixels[start : start + size])))
        return found

    def features(self, captions: Sequence[str]) -> Tensor:
        """Return the text features of N captions, (N, D) float32 on the CPU."""
        return self._encode(list(captions))
