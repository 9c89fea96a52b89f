"""Captions from a frozen BLIP: a folder with ``config.json``, ``model.safetensors``, its tokenizer and its processor.

Greedy decoding in float32 (or bf16 on a GPU), so that a caption depends on its image alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from nullscope.config import Params

disable_progress_bar()  # of the loading of a few files: it would write over our own


class CaptionParams(Params):
    """How captions are made; part of what a caption is, so that another value is another caption."""

    max_new_tokens: PositiveInt  # 40 in the notebooks of Advanced NS-Net
    batch_size: PositiveInt  # images per call; fixed, because batched sums round differently


class Captioner:
    """A frozen BLIP on one device."""

    def __init__(self, directory: Path, params: CaptionParams, device: torch.device) -> None:
        """Raises `ValueError` if ``directory`` is not a BLIP."""
        _check(directory)
        model = BlipForConditionalGeneration.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        self.model = model.requires_grad_(False).eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.directory, self.device = directory, device
        # An image unlike those it was trained on may never end its caption; a small BLIP has few positions for it.
        self.new_tokens = min(params.max_new_tokens, model.config.text_config.max_position_embeddings - 1)

    def caption(self, pixels_BCHW: Tensor) -> list[str]:
        """Return one caption per image of `PixelReader`, (B, 3, S, S) float32. Raises `ValueError` on an empty caption."""
        with torch.inference_mode():
            tokens = self.model.generate(
                pixel_values=pixels_BCHW.to(self.device),
                max_new_tokens=self.new_tokens,
                do_sample=False,
                num_beams=1,
            )
        captions = [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        if not all(captions):
            raise ValueError(f"{self.directory}: {captions.count('')} of {len(captions)} captions are empty; is it trained?")
        return captions


class PixelReader:
    """What BLIP sees of an image; apart from the model, because it runs in the loader's processes.

    The image processor is the one built on Pillow: transformers' default is another resizer with other pixels.
    """

    def __init__(self, directory: Path) -> None:
        _check(directory)
        self.processor = BlipImageProcessorPil.from_pretrained(directory, local_files_only=True)

    def __call__(self, image_HWC: NDArray[np.uint8]) -> Tensor:
        """Return (3, S, S) float32 of an RGB image (H, W, 3) uint8."""
        return self.processor(Image.fromarray(image_HWC), return_tensors="pt").pixel_values[0]


def _check(directory: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        if not (Path(directory) / name).is_file():
            raise ValueError(f"{directory}: no {name}; run `dvc repro encoders`, or `dvc pull` if it was made elsewhere")
