"""Honest degradations of a photograph, and what was done as numbers: the second task of the encoder's pre-training.

A CLIP trained on captions alone forgets everything finer than its words, so a detector on top of it is blind. Real CLIP
towers keep such traces because the web is full of resized, blurred, noisy and recompressed pictures. This module makes
those, and nothing that belongs to a generator.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

RESAMPLING = ("none", "nearest", "bilinear", "bicubic", "lanczos")
KEEP_RESOLUTION_SHARE = 0.4  # of the pictures are not resampled: the commonest kind, hence what a blind guess gets
AMOUNTS = ("resampling factor", "blur", "noise", "compression")  # the columns of `Degradation.amounts`

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FACTORS = (1.25, 1.5, 2.0)
_BLUR_SIGMA_PX = (0.0, 0.0, 0.0, 0.0, 0.5, 0.8, 1.2)  # mostly nothing: what hides the other traces is rare
_NOISE_SIGMA = (0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 8.0)  # of 255
_JPEG_QUALITY = (100, 100, 100, 95, 90, 75, 60)  # 100: not compressed


@dataclass(frozen=True)
class Degradation:
    """What happens to a picture: shrunk and enlarged again, blurred, made noisy, compressed, in this order."""

    resampling: str
    factor: float
    blur_sigma_px: float
    noise_sigma: float
    jpeg_quality: int

    @property
    def amounts(self) -> NDArray[np.float32]:
        """The four `AMOUNTS`, each in [0, 1]."""
        amounts = (self.factor - 1, self.blur_sigma_px / 1.2, self.noise_sigma / 8, (100 - self.jpeg_quality) / 40)
        return np.array(amounts, np.float32)


def draw(rng: np.random.Generator) -> Degradation:
    """Return a degradation with independent parts; two in five pictures keep their resolution."""
    resampling = "none" if rng.random() < KEEP_RESOLUTION_SHARE else str(rng.choice(RESAMPLING[1:]))
    factor = 1.0 if resampling == "none" else float(rng.choice(_FACTORS))
    blur, noise, quality = (rng.choice(values) for values in (_BLUR_SIGMA_PX, _NOISE_SIGMA, _JPEG_QUALITY))
    return Degradation(resampling, factor, float(blur), float(noise), int(quality))


def apply(degradation: Degradation, picture_U8: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the (H, W, 3) uint8 ``picture_U8`` degraded; ``rng`` draws the noise."""
    picture = Image.fromarray(picture_U8)
    if degradation.resampling != "none":
        small = tuple(round(side / degradation.factor) for side in picture.size)
        shrunk = picture.resize(small, Image.Resampling.BOX)
        picture = shrunk.resize(picture.size, _FILTERS[degradation.resampling])
    if degradation.blur_sigma_px:
        picture = picture.filter(ImageFilter.GaussianBlur(degradation.blur_sigma_px))
    if degradation.noise_sigma:
        noise = degradation.noise_sigma * rng.standard_normal(picture_U8.shape, dtype=np.float32)
        picture = Image.fromarray(np.clip(np.asarray(picture) + noise + 0.5, 0, 255).astype(np.uint8))
    if degradation.jpeg_quality < 100:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=degradation.jpeg_quality)
        picture = Image.open(buffer)
    return np.asarray(picture)
