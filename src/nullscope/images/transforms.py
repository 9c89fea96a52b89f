"""Transforms: from an image to the arrays a detector eats. They run in the loader's processes, on one image at a time.

An image's arrays depend on that image, the seed and the epoch, never on its neighbours, the number of workers or the order.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Transform(Protocol):
    """What a detector reads of an image. The call turns one image into named arrays.

    In training the arrays of all images have the same shapes, so that they fit into a batch. In testing they may differ: images
    are then scored in batches of equal shapes.
    """

    kind: str  # of the shards, one of contracts.SHARD_KINDS: the call gets the patch-selected mosaic, or the image as it is
    min_side_px: int  # the shortest side of an original image that it takes; a shorter one is refused

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return the named arrays of an RGB image; ``rng`` is that image's own."""


@dataclass(frozen=True)
class PatchMosaic:
    """The patch-selected mosaic as uint8 (3, M, M), with the order its patches are to be shown in and whether to flip it.

    The papers shuffle the patches at test time too, so that the same image has another score every time; here the order is
    drawn from the image's id in testing, and from (seed, epoch, id) in training.
    """

    cells: int  # patches of a mosaic
    flip: float  # probability of flipping a training mosaic
    min_side_px: int = 1  # of the original image; the side of a patch, where patches are cut from it
    kind: ClassVar[str] = "patches"

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, M, M) uint8, ``order`` (cells,) int64 and ``flip`` () bool."""
        image = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        order = rng.permutation(self.cells)
        return {"image": image, "order": order, "flip": np.array(training and rng.random() < self.flip)}


@dataclass(frozen=True)
class WholeImage:
    """The image without patch selection: resized, then cropped, or only one of both, or left at its own size.

    - CLIP's input: ``crop`` as UnivFD (crop alone, to the tower's side), ``resize`` as AIGIBench's CLIP (resize alone).
    - The usual input of AIGIBench's detectors on pixels: resized to 256, a random crop of 224 in training, no crop in testing.
    - Native size in testing: neither resized nor cropped there.

    Resizing brings both sides to the same length, whatever the aspect: bilinear with antialiasing. A crop is a random window in
    training and the central one in testing; its pixels are untouched, and what an image lacks is black.
    """

    resize_px: int | None  # both sides come to this length first; None: they stay
    crop_px: int | None  # side of the window in training; None: no crop
    test_crop_px: int | None  # side of the window in testing; None: no crop
    flip: float  # probability of flipping a training image
    min_side_px: int = 1
    kind: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        """Raises `ValueError` if training images would keep their own sizes, which fit into no batch."""
        if self.resize_px is None and self.crop_px is None:
            raise ValueError("expected resize_px or crop_px, found neither: training images of different sizes fit into no batch")

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, H, W) uint8 and ``flip`` () bool."""
        if self.resize_px is not None:
            image_HWC = _resized(image_HWC, self.resize_px)
        side = self.crop_px if training else self.test_crop_px
        if side is not None:
            image_HWC = window(image_HWC, side, rng if training else None)
        image = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        return {"image": image, "flip": np.array(training and rng.random() < self.flip)}


def _resized(image_HWC: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(image_HWC).resize((side, side), Image.Resampling.BILINEAR))


def window(image_HWC: NDArray[np.uint8], side: int, rng: np.random.Generator | None) -> NDArray[np.uint8]:
    """Return a window drawn by ``rng``, or the central one; black where the image ends."""
    missing = [max(0, side - size) for size in image_HWC.shape[:2]]
    if any(missing):
        image_HWC = np.pad(image_HWC, [(lack // 2, lack - lack // 2) for lack in missing] + [(0, 0)])
    spare = [size - side for size in image_HWC.shape[:2]]
    # Halves are rounded to even, as torchvision's CenterCrop does.
    top, left = (round(room / 2) if rng is None else int(rng.integers(room + 1)) for room in spare)
    return image_HWC[top : top + side, left : left + side]


def image_rng(image_id: str, *draw: object) -> np.random.Generator:
    """Return the generator of one image: seeded by its id and, in training, by ``draw`` (seed and epoch)."""
    return np.random.default_rng([zlib.crc32(repr(draw).encode()), int(image_id[:16], 16)])
