"""What can be done to a whole image by a name such as ``jpeg_75``: a kind, and an amount behind it.

| name | what it does |
|---|---|
| ``jpeg_<quality>`` | Pillow's JPEG at that quality with its default 4:2:0 chroma, decoded again |
| ``webp_<quality>`` | lossy WebP, likewise |
| ``resize_<factor>`` | both sides times the factor, bilinear with antialiasing |
| ``crop_<side>`` | the central window of at most that side in pixels; nothing is padded |

`preparation` takes these to make the files of a data set alike, `degradations` takes them and more to test robustness.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class Kind:
    """One kind of step: what it does, and which amounts it takes."""

    apply: Callable[[Pixels, float, int], Pixels]  # image, amount, the shortest side it may leave in pixels
    amount: str  # what the amount is
    low: float
    high: float
    whole: bool  # whole numbers only


def parse(step: str, kinds: Mapping[str, Kind], *, word: str, others: tuple[str, ...] = ()) -> tuple[str, float]:
    """Return the kind and the amount of a step. Raises `ValueError` that lists what is known, ``others`` included.

    ``word`` is what the error calls a step.
    """
    name, _, amount = step.partition("_")
    known = "known: " + ", ".join([*(f"{each}_<{kind.amount}>" for each, kind in kinds.items()), *others])
    if name not in kinds:
        raise ValueError(f"no {word} {step!r}; {known}")
    kind = kinds[name]
    try:
        value = int(amount) if kind.whole else float(amount)
    except ValueError:
        raise ValueError(f"{word} {step!r}: expected a number behind {name}_; {known}") from None
    if not kind.low <= value <= kind.high:
        raise ValueError(f"{word} {step!r}: expected {kind.amount} from {kind.low} to {kind.high}")
    return name, value


def encoded(image_HWC: Pixels, codec: str, quality: float) -> bytes:
    """Return the image as a file of ``codec``, ``jpeg`` or ``webp``."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, codec, quality=int(quality))
    return buffer.getvalue()


def _recoded(image_HWC: Pixels, quality: float, min_side: int, *, codec: str) -> Pixels:
    with Image.open(io.BytesIO(encoded(image_HWC, codec, quality))) as image:
        return np.array(image.convert("RGB"))


def _resized(image_HWC: Pixels, factor: float, min_side: int) -> Pixels:
    height, width = (max(round(side * factor), min(side, min_side)) for side in image_HWC.shape[:2])
    return np.array(Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR))


def _cropped(image_HWC: Pixels, side: float, min_side: int) -> Pixels:
    wanted = max(int(side), min_side)
    top, left = (max(0, (size - wanted) // 2) for size in image_HWC.shape[:2])
    return np.ascontiguousarray(image_HWC[top : top + wanted, left : left + wanted])


KINDS = {
    "jpeg": Kind(partial(_recoded, codec="jpeg"), "quality", 1, 100, whole=True),
    "webp": Kind(partial(_recoded, codec="webp"), "quality", 1, 100, whole=True),
    "resize": Kind(_resized, "factor", 0.05, 8, whole=False),
    "crop": Kind(_cropped, "side", 1, 65_535, whole=True),
}
