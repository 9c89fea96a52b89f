"""Captions from a frozen BLIP: a folder with ``config.json``, ``model.safetensors``, its tokenizer and its processor.

Decoding is greedy, so that a caption depends on its image alone. For 5 of the embedded world's 2,060 images bf16 writes another
caption than float32, so the precision is a parameter.

All images of a call are decoded until the longest caption ends. With Salesforce's base BLIP an image costs 111 GFLOP in the image
tower, 16 for the keys and values that the text decoder makes of it once, and 0.3 for each token. So finished captions stay in the
batch, and captions are not sorted by length: it would save next to nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from nullscope.core.config import Params

disable_progress_bar()  # of the loading of a few files: it would write over our own

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class CaptionParams(Params):
    """How captions are made; part of what a caption is, so that another value is another caption."""

    max_new_tokens: PositiveInt  # 40 in the notebooks of Advanced NS-Net
    batch_size: PositiveInt  # images per call; fixed, because batched sums round differently
    precision: Literal["fp32", "bf16"]


class Captioner:
    """A frozen BLIP on one device."""

    def __init__(self, directory: Path, params: CaptionParams, device: torch.device) -> None:
        """Raises `ValueError` if ``directory`` is not a BLIP."""
        _check(directory)
        model = BlipForConditionalGeneration.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        self.model = model.requires_grad_(False).eval().to(device, PRECISIONS[params.precision])
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.scale, self.directory, self.device = LevelScale(directory), directory, device
        # An image unlike those it was trained on may never end its caption; a small BLIP has few positions for it.
        self.new_tokens = min(params.max_new_tokens, model.config.text_config.max_position_embeddings - 1)

    def caption(self, pixels_BCHW: Tensor) -> list[str]:
        """Return one caption per image of `PixelReader`, (B, 3, S, S) uint8. Raises `ValueError` on an empty caption."""
        with torch.inference_mode():
            scaled_BCHW = self.scale(pixels_BCHW.to(self.device, non_blocking=True))
            tokens = self.model.generate(
                pixel_values=scaled_BCHW.to(self.model.dtype),
                max_new_tokens=self.new_tokens,
                do_sample=False,
                num_beams=1,
            )
        captions = [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        if not all(captions):
            raise ValueError(f"{self.directory}: {captions.count('')} of {len(captions)} captions are empty; is it trained?")
        return captions


class PixelReader:
    """The resized image that BLIP sees, as bytes. It is apart from the model because it runs in the loader's processes.

    The resizer is Pillow's; the default of transformers is another one and gives other pixels. Bytes travel between processes and
    to the device, where `LevelScale` turns them into floats, which take four times as much room. Pillow is called directly: the
    checks of transformers take as long as the work on a small image.
    """

    def __init__(self, directory: Path) -> None:
        processor = _processor(directory)
        self.side, self.resample = (processor.size["width"], processor.size["height"]), processor.resample

    def __call__(self, image_HWC: NDArray[np.uint8]) -> Tensor:
        """Return (3, S, S) uint8 of an RGB image (H, W, 3) uint8."""
        resized_SSC = np.asarray(Image.fromarray(image_HWC).resize(self.side, self.resample))
        return torch.from_numpy(np.ascontiguousarray(resized_SSC.transpose(2, 0, 1)))


class LevelScale:
    """Turns the bytes of an image into the floats that BLIP was trained on, bit for bit as its processor in transformers does."""

    def __init__(self, directory: Path) -> None:
        processor = _processor(directory)
        self.factor, self.mean, self.std = processor.rescale_factor, processor.image_mean, processor.image_std

    def __call__(self, level_BCHW: Tensor) -> Tensor:
        """Return (B, 3, S, S) float32 of uint8, on the same device."""
        mean_C11, std_C11 = (torch.tensor(value, device=level_BCHW.device)[:, None, None] for value in (self.mean, self.std))
        return ((level_BCHW.double() * self.factor).float() - mean_C11) / std_C11  # it scales in double precision


def _processor(directory: Path) -> BlipImageProcessorPil:
    """Return the folder's image processor. Raises `ValueError` if it does something else than the classes above."""
    _check(directory)
    processor = BlipImageProcessorPil.from_pretrained(directory, local_files_only=True)
    if not (processor.do_resize and processor.do_rescale and processor.do_normalize):
        raise ValueError(f"{directory}: expected a BLIP that resizes, rescales and normalises its images")
    return processor


def _check(directory: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        if not (Path(directory) / name).is_file():
            raise ValueError(f"{directory}: no {name}; run `dvc repro encoders`, or `dvc pull` if it was made elsewhere")
