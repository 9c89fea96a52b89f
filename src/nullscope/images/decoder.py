"""Bytes to pixels: the one decoder of the project, so that index, captions, shards and predictions see the same image.

| what the file holds | what comes out |
|---|---|
| EXIF (or XMP) orientation | applied; an unreadable EXIF block is no orientation, as in every viewer |
| RGB of 8 bits | as it is, without its colour profile (1) |
| RGB of 16 bits | the high byte of every sample |
| grey of 16 bits | the high byte, in three equal channels (2) |
| grey of 1 or 8 bits, palette, YCbCr | converted to RGB |
| CMYK, YCCK | converted to RGB by Pillow's formula, without a profile |
| alpha channel, transparent palette entry, colour key | composited on white (3); opaque pixels keep their exact values |
| animation, several pages | the first frame or page |
| 32-bit grey, floating point, CIELab | refused: no agreed black and white |
| more than `max_pixels` pixels | refused from the header, before any pixel is decoded |
| missing end, damaged data, a PNG chunk with a wrong checksum | refused (4) |
| any format outside `FORMATS`, or no image | refused, with what it looks like |

(1) Applying it would round every value and so rewrite the noise that detectors read. (2) Pillow's own conversion clips at 255,
which turns nearly all of it white. (3) White is what a reader saw; the colours below transparent pixels were seen by nobody
and are whatever an editor left there. (4) Damage inside a JPEG's coefficients is invisible to every decoder.

Whatever is wrong with the bytes, the error is `ImageError`.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, features

from nullscope.images.jpeg_quality import estimate_quality

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if features.check("avif") else ()))
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
WHITE = (255, 255, 255, 255)

# Name, offset and bytes of what is found in data sets under an image's name; the most telling first.
SIGNATURES = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WEBP", 8, b"WEBP"),
    ("GIF", 0, b"GIF8"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("AVIF", 4, b"ftypavif"),
    ("HEIC", 4, b"ftyphei"),
    ("HEIC", 4, b"ftypmif1"),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("JPEG XL", 4, b"JXL "),
    ("JPEG 2000", 4, b"jP  "),
    ("Photoshop document", 0, b"8BPS"),
    ("video", 4, b"ftyp"),
    ("PDF", 0, b"%PDF-"),
    ("zip archive", 0, b"PK\x03\x04"),
    ("gzip archive", 0, b"\x1f\x8b"),
    ("7z archive", 0, b"7z\xbc\xaf\x27\x1c"),
    ("tar archive", 257, b"ustar"),
    ("NumPy array", 0, b"\x93NUMPY"),
    ("Git LFS pointer: fetch the file with `git lfs pull`", 0, b"version https://git-lfs"),
    ("web page", 0, b"<!DOCTYPE html"),
    ("web page", 0, b"<html"),
    ("SVG or XML", 0, b"<svg"),
    ("SVG or XML", 0, b"<?xml"),
)


class ImageError(ValueError):
    """Why a file is refused: a short sentence that stands in ``rejects.csv``."""


@dataclass(frozen=True)
class Facts:
    """What the index says of an image's file."""

    width: int  # pixels, after EXIF rotation
    height: int
    format: str  # one of FORMATS
    bytes: int
    jpeg_quality: int | None  # 1 to 100, None where the file is not a JPEG


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Return the image as (H, W, 3) RGB uint8, contiguous and writable, by the table above.

    Raises `ImageError`, and nothing else, where the bytes are refused.
    """
    with _only_image_errors(data):
        image = _open(data, max_pixels)
        pixels_HWC = np.array(_rgb(image))
        return np.ascontiguousarray(_upright(pixels_HWC, _orientation(image)))


def pixels_of(image: Image.Image, *, max_pixels: int) -> NDArray[np.uint8]:
    """Return an image that Pillow holds as `decode` does: (H, W, 3) RGB uint8, by the table above, of the frame it stands on.

    The image is loaded if it was not, and otherwise left alone. The EXIF orientation that it carries is applied. Raises
    `ImageError`, and nothing else.
    """
    try:
        with _SWITCHES:
            check_pixels(*image.size, max_pixels)
            image.load()
            pixels_HWC = np.array(_rgb(image.copy()))
            return np.ascontiguousarray(_upright(pixels_HWC, _orientation(image)))
    except ImageError:
        raise
    except Exception as error:  # as of a file: a damaged one that was opened and not yet loaded brings anything
        raise ImageError(f"damaged image: {_cause(error)}") from error


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise `ImageError` if an image of this size has more than ``max_pixels`` pixels."""
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} px: more pixels than the limit, dataset.max_pixels = {max_pixels}")


def facts(data: bytes, *, max_pixels: int) -> Facts:
    """Decode the image wholly, so that damage is found, and return what the index records of it. Raises as `decode` does."""
    with _only_image_errors(data):
        image = _open(data, max_pixels)
        width, height = _rgb(image).size
        if _orientation(image) >= 5:  # a quarter turn
            width, height = height, width
        return Facts(width, height, _format(image), len(data), _jpeg_quality(image))


def header_facts(data: bytes) -> Facts:
    """Return what the index records of an image that was decoded before, from its header alone. Raises as `decode` does."""
    with _only_image_errors(data):
        image = _open(data, max_pixels=2**62)
        return Facts(*image.size, _format(image), len(data), _jpeg_quality(image))


def looks_like(data: bytes) -> str:
    """Return what a file holds by its first bytes: a name of `SIGNATURES`, ``text`` or ``unknown data``."""
    for name, offset, magic in SIGNATURES:
        if data[offset : offset + len(magic)].lower() == magic.lower():
            return name
    head = data[:512].decode("utf-8", errors="ignore")
    if head and len(head.encode()) >= len(data[:512]) - 3 and all(c.isprintable() or c.isspace() for c in head):
        return "text"
    return "BMP" if data[:2] == b"BM" else "unknown data"


class _PillowSwitches:
    """Pillow's process-wide switches: ours while any thread decodes here, the caller's own again afterwards.

    Its limit on pixels is lifted since ours stands in its place; a training script that switched truncated files on must not
    change what is accepted here; and its warnings (damaged EXIF, mostly) must not become errors under ``-W error``.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                self.theirs = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.filters.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self.theirs


_SWITCHES = _PillowSwitches()


@contextmanager
def _only_image_errors(data: bytes) -> Iterator[None]:
    """Turn whatever decoding raises into an `ImageError` with the cause."""
    try:
        with _SWITCHES:
            yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:  # its message holds a memory address; equal files are refused in equal words
        raise ImageError(_unidentified(data)) from None
    except Exception as error:  # damaged files bring SyntaxError, struct.error, MemoryError, KeyError, ... out of Pillow
        raise ImageError(f"damaged {looks_like(data)}: {_cause(error)}") from error


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Return the image with its header read, its size checked and no pixel decoded yet."""
    if not data:
        raise ImageError("empty file (0 bytes)")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    sizes = [image.size]
    if image.format == "TIFF":  # a large tile may hide behind a small size
        sizes.append((image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0), image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0)))
    for width, height in sizes:
        check_pixels(width, height, max_pixels)
    if image.format == "PNG":  # Pillow stops reading at the last pixel and checks no sum on the way
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    return image


def _rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Decode the first frame and return it in mode RGB, not yet rotated."""
    image.load()
    if image.mode.startswith("I;16"):
        high_byte_HW = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte_HW).convert("RGB")
    if image.mode == "RGB" and max(image.info.get("transparency", (0,))) > 255:
        del image.info["transparency"]  # a colour key of 16 bits says nothing about samples already cut to 8
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer).convert("RGB")
    if image.mode not in PLAIN_MODES:
        raise ImageError(f"{_format(image)} in Pillow's mode {image.mode}: no agreed black and white; save it with 8 or 16 bits")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation, 1 to 8, of a loaded image (loading a TIFF applies and removes it)."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged block brings anything out of Pillow; the pixels are whole
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return a view of the pixels turned by the EXIF orientation (2, 4, 5 and 7 are mirrored)."""
    turned = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    view = np.rot90(pixels_HWC, turned)
    if orientation in (2, 4):
        return view[:, ::-1]
    return view[::-1] if orientation in (5, 7) else view


def _format(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the format; the multi-picture JPEG of phones (MPO) is a JPEG with a second one behind it."""
    return "JPEG" if image.format == "MPO" else str(image.format or "image")


def _jpeg_quality(image: ImageFile.ImageFile) -> int | None:
    if _format(image) != "JPEG":
        return None
    luminance = image.quantization.get(image.layer[0][3])  # the table that the first component names
    return None if luminance is None else estimate_quality(luminance)


def _unidentified(data: bytes) -> str:
    kind = looks_like(data)
    if kind in FORMATS:
        return f"damaged {kind}: its header cannot be read"
    return f"not an image of a known format: looks like {kind}"


def _cause(error: Exception) -> str:
    """Return the error's message on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
