"""Transforms: from an image to the arrays a detector eats. They run in the loader's processes, on one image at a time.

An image's arrays depend on that image, the seed and the epoch, never on its neighbours, the number of workers or the order.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Transform(Protocol):
    """What a detector reads: ``kind`` names the shards, the call turns one image into arrays of a fixed shape."""

    kind: str  # one of contracts.SHARD_KINDS: the call gets the patch-selected mosaic, or the image as it is

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return the named arrays of an RGB image; ``rng`` is that image's own."""


@dataclass(frozen=True)
class PatchMosaic:
    """The patch-selected mosaic as uint8 (3, M, M), with the order its patches are to be shown in and whether to flip it.

    The papers shuffle the patches at test time too, so that the same image has another score every time; here the order is
    drawn from the image's id in testing, and from (seed, epoch, id) in training.
    """

    cells: int  # patches of a mosaic
    flip: float  # probability of mirroring a training mosaic
    kind: ClassVar[str] = "patches"

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, M, M) uint8, ``order`` (cells,) int64 and ``flip`` () bool."""
        image = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        order = rng.permutation(self.cells)
        return {"image": image, "order": order, "flip": np.array(training and rng.random() < self.flip)}


@dataclass(frozen=True)
class WholeImage:
    """The image without patch selection, brought to the tower's side: a window of it, or all of it squashed.

    ``crop`` as UnivFD: a random window in training, the central one in testing, pixels untouched; what an image lacks is black.
    ``resize`` as AIGIBench: both sides to the tower's, bilinear with antialiasing, whatever the aspect.
    """

    fit: Literal["crop", "resize"]
    side: int  # of the square that comes out, pixels
    flip: float  # probability of mirroring a training image
    kind: ClassVar[str] = "images"

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, side, side) uint8 and ``flip`` () bool."""
        square = self._resized(image_HWC) if self.fit == "resize" else self._window(image_HWC, rng, training)
        image = np.ascontiguousarray(square.transpose(2, 0, 1))
        return {"image": image, "flip": np.array(training and rng.random() < self.flip)}

    def _resized(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(Image.fromarray(image_HWC).resize((self.side, self.side), Image.Resampling.BILINEAR))

    def _window(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, training: bool) -> NDArray[np.uint8]:
        missing = [max(0, self.side - size) for size in image_HWC.shape[:2]]
        padded = image_HWC
        if any(missing):
            padded = np.pad(image_HWC, [(lack // 2, lack - lack // 2) for lack in missing] + [(0, 0)])
        spare = [size - self.side for size in padded.shape[:2]]
        # Halves are rounded to even, as torchvision's CenterCrop does.
        top, left = (int(rng.integers(room + 1)) if training else round(room / 2) for room in spare)
        return padded[top : top + self.side, left : left + self.side]


def image_rng(image_id: str, *draw: object) -> np.random.Generator:
    """Return the generator of one image: seeded by its id and, in training, by ``draw`` (seed and epoch)."""
    return np.random.default_rng([zlib.crc32(repr(draw).encode()), int(image_id[:16], 16)])
