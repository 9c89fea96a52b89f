"""What a logit depends on beside its image: its batch, and the precision of products.

A score is to depend on the image alone, to rounding. For every setting: the largest difference between the logit of an image in a
batch of 64 (as scoring has it) and alone, and between it and the same detector in float64; `spread` is the standard deviation of
the logits over the images. `tf32` lets a GPU round the operands of float32 products to 10 bits: torch's default is to do so in
convolutions (the first layer of a tower is one) and not in matrix products.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from measure import over_encoders
from merging import adapted
from samples import write_clip
from torch import Tensor
from training_step import random_batch

from nullscope.detectors.base import Detector

SETTINGS = {  # precision, TF32 in convolutions, in matrix products
    "fp32, torch's default": ("fp32", True, False),
    "fp32, no tf32": ("fp32", False, False),
    "fp32, tf32": ("fp32", True, True),
    "bf16": ("bf16", True, False),
}


def logits(detector: Detector, pixels_BCHW: Tensor, size: int, precision: str) -> Tensor:
    """Return the logits (B,) of images in batches of ``size``."""
    found = []
    with torch.inference_mode():
        for part in pixels_BCHW.split(size):
            with torch.autocast(part.device.type, torch.bfloat16, enabled=precision == "bf16"):
                feature_BD = detector.clip.tower(part)
            found.append(detector.head(feature_BD.to(detector.head.weight.dtype)).squeeze(1))
    return torch.cat(found)


def measure(size: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row of the table for every setting; a CPU has no TF32. ``rounds`` are not needed: nothing is timed."""
    with tempfile.TemporaryDirectory() as name:
        detector = adapted(write_clip(size, Path(name) / "clip"), size).to(device)
    pixels_BCHW = detector.clip.pixels(random_batch(size, count, detector.clip.width).to(device).inputs)
    exact_B = logits(copy.deepcopy(detector).double(), pixels_BCHW.double(), count, "fp64")
    rows = []
    for setting, (precision, convolutions, products) in SETTINGS.items():
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
        together_B, alone_B, again_B = (logits(detector, pixels_BCHW, batch, precision) for batch in (count, 1, count))
        rows.append(
            {
                "encoders": size,
                "images": count,
                "setting": setting,
                "batch or alone": f"{(together_B - alone_B).abs().max().item():.1e}",
                "off float64": f"{(together_B - exact_B).abs().max().item():.1e}",
                "spread": f"{exact_B.std().item():.1e}",
                "again": "same bits" if torch.equal(together_B, again_B) else "other bits",
            }
        )
    return rows


def main() -> None:
    over_encoders("rounding", __doc__, measure, larger="vit_l_14", counted=("images", 64, "images"), rounds=1)


if __name__ == "__main__":
    main()
