"""What happens to images on their way to a reader, by name: for robustness, and for making the files of a data set alike.

| name | what it does to the whole image, before any patch is selected |
|---|---|
| ``jpeg_<quality>`` | Pillow's JPEG at that quality with its default 4:2:0 chroma, decoded again |
| ``webp_<quality>`` | lossy WebP, likewise |
| ``blur_<sigma>`` | Gaussian, sigma in pixels, each channel, cut at 4 sigma, edges reflected |
| ``resize_<factor>`` | both sides times the factor, bilinear with antialiasing |
| ``crop_<side>`` | the central window of at most that side in pixels; nothing is padded |
| ``social`` | ``resize_0.75``, ``jpeg_85``, ``jpeg_75``: uploaded scaled and compressed, then shared once more |

The papers print JPEG 95, 85, 75 and blur 0.5, 1.0, 1.5 (DGS-Net, tables 5 and 6) and do not say how they are made. JPEG and
the untruncated blur are what UniversalFakeDetect and sidbench do (PIL, scipy.ndimage); SAFE cuts the blur at five pixels, which
changes sigma 1.5. One difference: scipy on uint8 cuts fractions off after every axis, here they are kept and rounded once.
``social`` is a recipe of ours, not any platform's.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator
from scipy.ndimage import gaussian_filter

from nullscope.config import Params
from nullscope.contracts import CLEAN

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
CHAINS = {"social": ("resize_0.75", "jpeg_85", "jpeg_75")}
SUFFIXES = {"jpeg": "jpg", "webp": "webp"}  # of the codecs


def degrade(image_HWC: Pixels, name: str, *, min_side: int) -> Pixels:
    """Return the image after the named degradation; no resizing or cropping makes a side shorter than ``min_side`` pixels.

    An image that is smaller already keeps its size. Raises `ValueError` if there is no such degradation.
    """
    for step in CHAINS.get(name, (name,)):
        kind, amount = _parsed(step)
        image_HWC = _KINDS[kind](image_HWC, amount, min_side)
    return image_HWC


def prepared(image_HWC: Pixels, names: Sequence[str], *, min_side: int) -> Pixels:
    """Return the image after all of ``names``, one after the other."""
    for name in names:
        image_HWC = degrade(image_HWC, name, min_side=min_side)
    return image_HWC


def encode_prepared(image_HWC: Pixels, names: Sequence[str], *, min_side: int) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a file that decodes to `prepared`: the last codec's own, or a PNG."""
    kind, amount = _parsed(names[-1]) if names[-1] not in CHAINS else _parsed(CHAINS[names[-1]][-1])
    if kind in SUFFIXES:
        before = [step for name in names for step in CHAINS.get(name, (name,))][:-1]
        return SUFFIXES[kind], _encoded(prepared(image_HWC, before, min_side=min_side), kind, amount)
    buffer = io.BytesIO()
    Image.fromarray(prepared(image_HWC, names, min_side=min_side)).save(buffer, "PNG", compress_level=1)
    return "png", buffer.getvalue()


def check_name(name: str) -> str:
    """Return ``name``. Raises `ValueError` that lists the known degradations unless it is one."""
    for step in CHAINS.get(name, (name,)):
        _parsed(step)
    return name


def _distinct(names: list[str]) -> list[str]:
    if CLEAN in names or len(set(names)) != len(names):
        raise ValueError(f"expected different degradations without {CLEAN!r}, which is always scored; found {names}")
    return names


Name = Annotated[str, AfterValidator(check_name)]
DegradationNames = Annotated[list[Name], AfterValidator(_distinct)]


class ScoreParams(Params):
    """What the test images are scored as, besides as they are."""

    degradations: DegradationNames


def _parsed(step: str) -> tuple[str, float]:
    kind, _, amount = step.partition("_")
    known = f"known: {', '.join(f'{each}_<{what}>' for each, what in _AMOUNTS.items())}, {', '.join(CHAINS)}"
    if kind not in _KINDS:
        raise ValueError(f"no degradation {step!r}; {known}")
    low, high, whole = _RANGES[kind]
    try:
        value = int(amount) if whole else float(amount)
    except ValueError:
        raise ValueError(f"degradation {step!r}: expected a number behind {kind}_; {known}") from None
    if not low <= value <= high:
        raise ValueError(f"degradation {step!r}: expected {_AMOUNTS[kind]} from {low} to {high}")
    return kind, value


def _recoded(image_HWC: Pixels, amount: float, min_side: int, *, kind: str) -> Pixels:
    with Image.open(io.BytesIO(_encoded(image_HWC, kind, amount))) as image:
        return np.array(image.convert("RGB"))


def _encoded(image_HWC: Pixels, kind: str, quality: float) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, kind, quality=int(quality))
    return buffer.getvalue()


def _blurred(image_HWC: Pixels, sigma: float, min_side: int) -> Pixels:
    blurred_HWC = gaussian_filter(image_HWC.astype(np.float32), (sigma, sigma, 0), mode="reflect", truncate=4.0)
    return np.rint(blurred_HWC).astype(np.uint8)


def _resized(image_HWC: Pixels, factor: float, min_side: int) -> Pixels:
    height, width = (max(round(side * factor), min(side, min_side)) for side in image_HWC.shape[:2])
    return np.array(Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR))


def _cropped(image_HWC: Pixels, side: float, min_side: int) -> Pixels:
    wanted = max(int(side), min_side)
    top, left = (max(0, (size - wanted) // 2) for size in image_HWC.shape[:2])
    return np.ascontiguousarray(image_HWC[top : top + wanted, left : left + wanted])


_KINDS: dict[str, Callable[[Pixels, float, int], Pixels]] = {
    "jpeg": partial(_recoded, kind="jpeg"),
    "webp": partial(_recoded, kind="webp"),
    "blur": _blurred,
    "resize": _resized,
    "crop": _cropped,
}
_AMOUNTS = {"jpeg": "quality", "webp": "quality", "blur": "sigma", "resize": "factor", "crop": "side"}
_RANGES = {  # from, to, whole numbers only
    "jpeg": (1, 100, True),
    "webp": (1, 100, True),
    "blur": (0.1, 100, False),
    "resize": (0.05, 8, False),
    "crop": (1, 65_535, True),
}
