"""Views: from an image to the arrays a detector eats. They run in the loader's processes, on one image at a time.

An image's arrays depend on that image, the seed and the epoch, never on its neighbours, the number of workers or the order.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


class View(Protocol):
    """What a detector reads: ``kind`` names the shards, the call turns one image into arrays of a fixed shape."""

    kind: str  # one of contracts.VIEWS: the call gets the patch-selected mosaic, or the image as it is

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


def image_rng(image_id: str, *draw: object) -> np.random.Generator:
    """Return the generator of one image: seeded by its id and, in training, by ``draw`` (seed and epoch)."""
    return np.random.default_rng([zlib.crc32(repr(draw).encode()), int(image_id[:16], 16)])
