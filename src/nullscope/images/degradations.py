"""Degradations: what may happen to an image before somebody judges it. The stage `score` tests robustness with them, by name.

| name | what it does to the whole image, before any patch is selected |
|---|---|
| ``jpeg_<quality>``, ``webp_<quality>``, ``resize_<factor>``, ``crop_<side>`` | see `steps` |
| ``blur_<sigma>`` | Gaussian, sigma in pixels, each channel, cut at 4 sigma, edges reflected |
| ``social`` | ``resize_0.75``, ``jpeg_85``, ``jpeg_75``: uploaded scaled and compressed, then shared once more |

The papers print JPEG 95, 85, 75 and blur 0.5, 1.0, 1.5 (DGS-Net, tables 5 and 6) and do not say how they are made. JPEG and
the untruncated blur are what UniversalFakeDetect and sidbench do (PIL, scipy.ndimage); SAFE cuts the blur at five pixels, which
changes sigma 1.5. One difference: scipy on uint8 cuts off fractions after every axis. Here they are kept and rounded once.
``social`` is our own recipe, not that of any platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator
from scipy.ndimage import gaussian_filter

from nullscope.core.config import Params
from nullscope.core.contracts import CLEAN
from nullscope.images import steps
from nullscope.images.steps import Kind, Pixels, parse
from nullscope.images.transforms import Transform
from nullscope.ops.patches import PatchParams, select

CHAINS = {"social": ("resize_0.75", "jpeg_85", "jpeg_75")}


def degrade(image_HWC: Pixels, name: str, *, min_side: int) -> Pixels:
    """Return the image after the named degradation; no resizing or cropping makes a side shorter than ``min_side`` pixels.

    An image that is smaller already keeps its size. Raises `ValueError` if there is no such degradation.
    """
    for step in CHAINS.get(name, (name,)):
        kind, amount = _parsed(step)
        image_HWC = KINDS[kind].apply(image_HWC, amount, min_side)
    return image_HWC


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
    """What images are scored as, besides as they are."""

    degradations: DegradationNames


@dataclass(frozen=True)
class Degraded:
    """The transform of a detector, applied to what a named degradation leaves of the image. Patches are selected after it."""

    transform: Transform
    degradation: str
    patches: PatchParams
    kind: ClassVar[str] = "images"

    @property
    def min_side_px(self) -> int:
        """The shortest side that the transform takes; no degradation makes an image smaller than a patch."""
        return self.transform.min_side_px

    def __call__(self, image_HWC: Pixels, rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return what the transform returns; the patches have the order that they have without the degradation."""
        seen_HWC = degrade(image_HWC, self.degradation, min_side=self.patches.patch_px)
        if self.transform.kind == "patches":
            seen_HWC = select(seen_HWC, self.patches)
        return self.transform(seen_HWC, rng, training=training)


def _blurred(image_HWC: Pixels, sigma: float, min_side: int) -> Pixels:
    blurred_HWC = gaussian_filter(image_HWC.astype(np.float32), (sigma, sigma, 0), mode="reflect", truncate=4.0)
    return np.rint(blurred_HWC).astype(np.uint8)


KINDS = {**steps.KINDS, "blur": Kind(_blurred, "sigma", 0.1, 100, whole=False)}


def _parsed(step: str) -> tuple[str, float]:
    return parse(step, KINDS, word="degradation", others=tuple(CHAINS))
