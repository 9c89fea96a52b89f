"""Augmentation of training images, every draw from the image's own generator; and the random crops that go with it.

An augmentation takes an RGB image (H, W, 3) of uint8 and a generator, and returns such an image.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from nullscope.images.steps import Pixels, encoded
from nullscope.images.transforms import window

Augmentation = Callable[[Pixels, np.random.Generator], Pixels]
MASK_PX = 16  # side of a cell of `Mask`


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of every channel, now and then (CNN-Spot: PeterWang512/CNNDetection, data/datasets.py)."""

    probability: float
    low: float  # sigma in pixels, uniform from low to high
    high: float

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
        if rng.random() >= self.probability:
            return image_HWC
        sigma = rng.uniform(self.low, self.high)
        return gaussian_filter(image_HWC, (sigma, sigma, 0))  # of uint8, as there: cut off, not rounded


@dataclass(frozen=True)
class Jpeg:
    """JPEG, now and then (as `Blur`; there OpenCV writes half of the files, here Pillow all of them)."""

    probability: float
    low: int  # quality, uniform from low to high
    high: int

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
        if rng.random() >= self.probability:
            return image_HWC
        quality = int(rng.integers(self.low, self.high + 1))
        with Image.open(io.BytesIO(encoded(image_HWC, "jpeg", quality))) as image:
            return np.array(image.convert("RGB"))


@dataclass(frozen=True)
class Rotation:
    """A rotation by any angle around the middle; nearest neighbour, black corners (SAFE: Ouxiang-Li/SAFE, data/datasets.py)."""

    degrees: float  # uniform from minus to plus this

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
        angle = rng.uniform(-self.degrees, self.degrees)
        return np.array(Image.fromarray(image_HWC).rotate(angle, Image.Resampling.NEAREST))


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast and saturation, each times a factor, in a random order (as `Rotation`; torchvision's ColorJitter)."""

    amount: float  # factors are uniform from 1 - amount to 1 + amount

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
        image = Image.fromarray(image_HWC)
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for number in rng.permutation(len(kinds)):
            image = kinds[number](image).enhance(rng.uniform(max(0.0, 1 - self.amount), 1 + self.amount))
        return np.array(image)


@dataclass(frozen=True)
class Mask:
    """Cells of 16 x 16 pixels in black, now and then (as `Rotation`)."""

    probability: float
    most: float  # share of the image, uniform from 0 to this

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
        if rng.random() >= self.probability:
            return image_HWC
        height, width = image_HWC.shape[:2]
        rows, columns = height // MASK_PX, width // MASK_PX
        count = int(height * width * rng.uniform(0, self.most) / MASK_PX**2)
        masked_HWC = image_HWC.copy()
        for cell in rng.permutation(rows * columns)[:count]:
            top, left = (MASK_PX * int(place) for place in divmod(int(cell), columns))
            masked_HWC[top : top + MASK_PX, left : left + MASK_PX] = 0
        return masked_HWC


@dataclass(frozen=True)
class AugmentedCrop:
    """Crops at the pixels' own scale, with augmentations before and after the random one; in testing a central crop or none.

    What an image lacks is black.
    """

    crop_px: int  # side of the window in training
    test_crop_px: int | None  # side of the window in testing; None: the whole image
    flip: float  # probability of flipping a training image
    short_px: int | None = None  # the shorter side of a training image comes to this length first; None: it stays
    before: tuple[Augmentation, ...] = ()
    after: tuple[Augmentation, ...] = ()
    min_side_px: int = 1
    kind: ClassVar[str] = "images"

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, H, W) uint8 and ``flip`` () bool."""
        if training:
            image_HWC = self._augmented(image_HWC, rng)
        elif self.test_crop_px is not None:
            image_HWC = window(image_HWC, self.test_crop_px, None)
        image = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        return {"image": image, "flip": np.array(training and rng.random() < self.flip)}

    def _augmented(self, image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
        if self.short_px is not None:
            image_HWC = shortened(image_HWC, self.short_px)
        for augmentation in self.before:
            image_HWC = augmentation(image_HWC, rng)
        image_HWC = window(image_HWC, self.crop_px, rng)
        for augmentation in self.after:
            image_HWC = augmentation(image_HWC, rng)
        return image_HWC


def shortened(image_HWC: Pixels, short_px: int) -> Pixels:
    """Return the image with its shorter side ``short_px`` long and its aspect kept, the longer side cut off to whole pixels."""
    height, width = image_HWC.shape[:2]
    short = min(height, width)
    size = (short_px * width // short, short_px * height // short)
    return np.array(Image.fromarray(image_HWC).resize(size, Image.Resampling.BILINEAR))
