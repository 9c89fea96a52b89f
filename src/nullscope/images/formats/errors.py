"""Why an image is refused."""

from __future__ import annotations


class ImageError(ValueError):
    """Why a file is refused: a short sentence that stands in ``rejects.csv``."""


def unsupported(what: str, remedy: str = "save it as PNG or JPEG with 8 or 16 bits a sample") -> ImageError:
    """Return the refusal of a file that is sound, and of a kind that is not read."""
    return ImageError(f"not supported: {what}; {remedy}")


def truncated(kind: str, what: str) -> ImageError:
    """Return the refusal of a file that ends properly, and lacks part of its picture."""
    return ImageError(f"truncated {kind}: {what}")
