"""Preparation: what is done to every image of a data set so that its files are alike (`steps` lists the names).

Reals and fakes often come in other formats, sizes and JPEG qualities, and a detector learns those instead (docs/audit.md). The
stage `shard` prepares the images of all splits, and a model's folder says what was done, so that the same is done to a person's
own images.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated

from PIL import Image
from pydantic import AfterValidator

from nullscope.images.steps import KINDS, Pixels, encoded, parse

SUFFIXES = {"jpeg": "jpg", "webp": "webp"}  # of the codecs


def prepared(image_HWC: Pixels, names: Sequence[str], *, min_side: int) -> Pixels:
    """Return the image after all of ``names``, one after the other; no side gets shorter than ``min_side`` pixels by it.

    An image that is smaller already keeps its size. Raises `ValueError` if there is no such step.
    """
    for name in names:
        kind, amount = _parsed(name)
        image_HWC = KINDS[kind].apply(image_HWC, amount, min_side)
    return image_HWC


def encode_prepared(image_HWC: Pixels, names: Sequence[str], *, min_side: int) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a file that decodes to `prepared`: the last codec's own, or a PNG."""
    kind, amount = _parsed(names[-1])
    if kind in SUFFIXES:
        return SUFFIXES[kind], encoded(prepared(image_HWC, names[:-1], min_side=min_side), kind, amount)
    buffer = io.BytesIO()
    Image.fromarray(prepared(image_HWC, names, min_side=min_side)).save(buffer, "PNG", compress_level=1)
    return "png", buffer.getvalue()


def check_name(name: str) -> str:
    """Return ``name``. Raises `ValueError` that lists the known steps unless it is one."""
    _parsed(name)
    return name


Name = Annotated[str, AfterValidator(check_name)]


def _parsed(name: str) -> tuple[str, float]:
    return parse(name, KINDS, word="preparation")
