"""The camera that takes the world's real pictures, and the laws that real and fake pictures share.

A scene passes a lens (Gaussian blur), a sensor (noise that grows with light) behind a Bayer mosaic, and bilinear
demosaicing. Every generated picture has the same lens blur, the same law of noise, and leaves through the same
`Encoding` law: what separates real from fake is how the pixels were made, not how much noise or which file format.

Images are (H, W, 3) float32 in [0, 1]; ``_U8`` marks uint8.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from scipy import ndimage

Image = NDArray[np.float32]

LENS_SIGMA_PX = (0.35, 0.75)
NOISE_SIGMA = (0.002, 0.02)  # deviation of the sensor's noise, of full scale, log-uniform
PNG_SHARE = 0.3
JPEG_QUALITY = (80, 98)  # inclusive

_BAYER = np.zeros((2, 2, 3), np.float32)
_BAYER[0, 0, 0] = _BAYER[0, 1, 1] = _BAYER[1, 0, 1] = _BAYER[1, 1, 2] = 1  # RGGB
_TENT = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]).astype(np.float32)
_CROSS = np.array([[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]], np.float32)
INTERPOLATION = (_TENT, _CROSS, _TENT)  # of red, green, blue
BAYER_SHARE = (0.25, 0.5, 0.25)  # of the places hold red, green, blue


@dataclass(frozen=True)
class Encoding:
    """How a picture is stored: ``suffix`` is ``jpg`` or ``png``; ``quality`` is 0 where it means nothing."""

    suffix: str
    quality: int


def photograph(scene: Image, rng: np.random.Generator) -> Image:
    """Return what the camera makes of ``scene``."""
    exposed = lens(scene, rng)
    return demosaic(exposed + sensor_noise(exposed, rng))


def lens(scene: Image, rng: np.random.Generator) -> Image:
    """Return ``scene`` blurred by a lens of random quality."""
    sigma_px = rng.uniform(*LENS_SIGMA_PX)
    return ndimage.gaussian_filter(scene, (sigma_px, sigma_px, 0), truncate=3.0, mode="reflect")


def sensor_noise(image: Image, rng: np.random.Generator) -> Image:
    """Return noise for ``image``: its variance grows with light, its level is one draw per picture."""
    level = np.float32(np.exp(rng.uniform(*np.log(NOISE_SIGMA))))
    white = rng.standard_normal(image.shape, dtype=np.float32)
    return white * level * np.sqrt(0.3 + np.clip(image, 0, 1))


def demosaic(image: Image) -> Image:
    """Return ``image`` as seen through an RGGB mosaic, its missing two thirds interpolated bilinearly."""
    height, width = image.shape[:2]
    mosaic = image * np.tile(_BAYER, (height // 2, width // 2, 1))
    channels = [ndimage.correlate(mosaic[..., channel], kernel, mode="mirror") for channel, kernel in enumerate(INTERPOLATION)]
    return np.clip(np.stack(channels, axis=2), 0, 1)


def to_uint8(image: Image) -> NDArray[np.uint8]:
    """Return ``image`` rounded to 8 bits."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_encoding(rng: np.random.Generator) -> Encoding:
    """Return a file format and quality from the one law that holds for real and fake."""
    is_png, quality = rng.random() < PNG_SHARE, int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    return Encoding("png", 0) if is_png else Encoding("jpg", quality)


def encode(image_U8: NDArray[np.uint8], encoding: Encoding) -> bytes:
    """Return the bytes of the picture's file."""
    buffer = io.BytesIO()
    picture = PillowImage.fromarray(image_U8)
    if encoding.suffix == "png":
        picture.save(buffer, "PNG", compress_level=6)
    else:
        picture.save(buffer, "JPEG", quality=encoding.quality)
    return buffer.getvalue()
