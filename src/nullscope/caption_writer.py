"""Captions of single images, and their text features, for a detector that reads captions at inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nullscope.backbones.blip import Captioner, CaptionParams, PixelReader
from nullscope.backbones.clip import load_text_encoder
from nullscope.core.config import validate
from nullscope.tables.text import TextTable


class Writer:
    """A frozen BLIP and text tower: captions of single images, and their features."""

    def __init__(self, blip: Path, clip: Path, params: dict[str, Any], given: Mapping[str, str], device: torch.device) -> None:
        """``params``: of the section ``caption``; ``given``: captions by the name of the image, taken as they are."""
        self.reader, self.given = PixelReader(blip), given
        self.params = validate("caption", params, CaptionParams)
        self.captioner = Captioner(blip, self.params, device)
        self.encode = load_text_encoder(clip, device)

    def features(self, pixels: Mapping[str, Tensor]) -> TextTable:
        """Return the features of the captions of the images that ``pixels`` names; (3, S, S) uint8 each, of `PixelReader`."""
        known = {name: self.given[name] for name in pixels if name in self.given}
        left = [name for name in pixels if name not in known]
        for start in range(0, len(left), self.params.batch_size):
            names = left[start : start + self.params.batch_size]
            known |= zip(names, self.captioner.caption(torch.stack([pixels[name] for name in names])), strict=True)
        return TextTable(list(known), self.encode(list(known.values())), "captions")
