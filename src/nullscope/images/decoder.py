"""Bytes to pixels: the one decoder of the project, so that index, captions, shards and predictions see the same image.

| what the file holds | what comes out |
|---|---|
| EXIF (or XMP) orientation | applied; an unreadable EXIF block is no orientation, as in every viewer |
| RGB of 8 bits | as it is, without its colour profile (1) |
| RGB of 16 bits | the high byte of every sample |
| grey of 12 or 16 bits | the high 8 bits, in three equal channels (2) |
| grey of 1 to 8 bits, palette, YCbCr | converted to RGB |
| white is 0 (TIFF) | inverted, at every depth |
| CMYK, YCCK | converted to RGB by Pillow's formula, without a profile |
| alpha channel, transparent palette entry, colour key | composited on white (3); opaque pixels keep their exact values |
| alpha that is 0 everywhere in a BMP | unused: the colours |
| animation, several pages | the first frame or page; a GIF's first frame on its canvas, which is transparent around it |
| floating point, signed, 32-bit grey, CIELab, JPEG of 12 bits, ... | not supported, by name (`unsupported`) |
| camera raw files | not supported: their first picture is a thumbnail |
| more than `max_pixels` pixels, hundreds of scans | refused from the header, before any pixel is decoded |
| missing end, missing pixels, damaged data, a PNG chunk with a wrong checksum | refused (4) |
| any format outside `FORMATS`, or no image | refused, with what it looks like |

(1) Applying it would round every value and so rewrite the noise that detectors read. (2) Pillow's own conversion clips at 255,
which turns nearly all of it white. (3) White is what a reader saw; the colours below transparent pixels were seen by nobody
and are whatever an editor left there. (4) Damage inside a JPEG's coefficients is invisible to every decoder.

Whatever is wrong with the bytes, the error is `ImageError`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, features

from nullscope.core.signatures import PICTURES, looks_like
from nullscope.images.formats import jpeg, plugins, png, tiff, webp
from nullscope.images.formats.errors import ImageError, unsupported
from nullscope.images.formats.jpeg_quality import estimate_quality
from nullscope.images.formats.switches import SWITCHES

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if features.check("avif") else ()))
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
WHITE = (255, 255, 255, 255)
INSIDE_BMP = {4: "JPEG", 5: "PNG"}  # compressions


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
        opened = _open(data, max_pixels)
        pixels_HWC = _pixels(opened)
        return np.ascontiguousarray(_upright(pixels_HWC, _orientation(opened.image)))


def pixels_of(image: Image.Image, *, max_pixels: int) -> NDArray[np.uint8]:
    """Return an image that Pillow holds as `decode` does: (H, W, 3) RGB uint8, by the table above, of the frame it stands on.

    The image is loaded if it was not, and otherwise left alone. The EXIF orientation that it carries is applied. Raises
    `ImageError`, and nothing else.
    """
    try:
        with SWITCHES:
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
        opened = _open(data, max_pixels)
        height, width, _ = _pixels(opened).shape
        if _orientation(opened.image) >= 5:  # a quarter turn
            width, height = height, width
        return Facts(width, height, _format(opened.image), len(data), _jpeg_quality(opened.image))


def header_facts(data: bytes) -> Facts:
    """Return what the index records of an image that was decoded before, from its header alone. Raises as `decode` does."""
    with _only_image_errors(data):
        image = _open(data, max_pixels=2**62).image
        return Facts(*image.size, _format(image), len(data), _jpeg_quality(image))


@dataclass(frozen=True)
class _Opened:
    """An image with its header read, and what Pillow's mode does not tell of it."""

    data: bytes
    image: ImageFile.ImageFile
    notes: jpeg.Jpeg | png.Png | tiff.Tiff | None
    frame: tuple[int, int, int, int] | None  # left, top, right and bottom of a GIF's first frame on its canvas


@contextmanager
def _only_image_errors(data: bytes) -> Iterator[None]:
    """Turn whatever decoding raises into an `ImageError` with the cause."""
    try:
        with SWITCHES:
            yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:  # its message holds a memory address; equal files are refused in equal words
        raise _unidentified(data) from None
    except MemoryError:
        raise ImageError(f"a {looks_like(data)} that needs more memory than there is") from None
    except Exception as error:  # damaged files bring SyntaxError, struct.error, MemoryError, KeyError, ... out of Pillow
        raise ImageError(f"damaged {looks_like(data)}: {_cause(error)}") from error


def _open(data: bytes, max_pixels: int) -> _Opened:
    """Return the image with its header read, its size checked and no pixel decoded yet."""
    if not data:
        raise ImageError("empty file (0 bytes)")
    kind, notes = looks_like(data), None
    if kind == "JPEG":
        notes = jpeg.checked(data)
    elif kind == "PNG":
        notes = png.checked(data)
        data = notes.data
    elif kind == "TIFF":
        notes = tiff.checked(data)
    elif kind == "WEBP":
        check_pixels(*webp.size(data), max_pixels)
    elif kind == "BMP" and (inside := INSIDE_BMP.get(int.from_bytes(data[30:34], "little"))):
        raise unsupported(f"a BMP with a {inside} inside")
    formats = (plugins.register(kind),) if kind in plugins.PLUGINS else FORMATS
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.UnidentifiedImageError:
        if kind == "TIFF":
            raise unsupported(tiff.described(data)) from None
        raise
    sizes = [image.size]
    if image.format == "TIFF":  # a large tile may hide behind a small size
        sizes.append((image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0), image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0)))
    for width, height in sizes:
        check_pixels(width, height, max_pixels)
    return _Opened(data, image, notes, image.tile[0].extents if image.format == "GIF" and image.tile else None)


def _pixels(opened: _Opened) -> NDArray[np.uint8]:
    """Decode the first frame and return it as (H, W, 3) RGB, not yet rotated."""
    image, notes = opened.image, opened.notes
    if isinstance(notes, tiff.Tiff):
        tiff.silence()
    image.load()
    if isinstance(notes, png.Png):
        png.check_pixels(notes, image)
    if isinstance(notes, jpeg.Jpeg):
        jpeg.check_filled(opened.data, notes, image)
    if image.format == "BMP" and image.mode == "RGBA" and not image.getextrema()[3][1]:
        image = image.convert("RGB")  # which drops an alpha channel that nobody used
    grey16_HW = _grey16(image, notes)
    if grey16_HW is not None:
        pixels_HWC = np.repeat((grey16_HW >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    else:
        pixels_HWC = np.array(_rgb(image))
    clear_HW = png.transparent(notes, grey16_HW, pixels_HWC) if isinstance(notes, png.Png) else _around(opened.frame, image.size)
    if clear_HW is not None:
        pixels_HWC[clear_HW] = WHITE[:3]
    return pixels_HWC


def _grey16(image: Image.Image, notes: object) -> NDArray[np.uint16] | None:
    """Return the samples of a grey image of more than 8 bits, black at 0 and white at 65,535; None for another."""
    if not image.mode.startswith("I;16"):
        return None
    samples_HW = np.asarray(image).astype(np.uint16)
    if isinstance(notes, tiff.Tiff):
        samples_HW = samples_HW << (16 - notes.bits)
        if notes.white_is_zero:
            samples_HW = ~samples_HW
    return samples_HW


def _around(frame: tuple[int, int, int, int] | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return where a canvas is not covered by its first frame, (H, W); None if it is everywhere."""
    if frame is None or frame == (0, 0, *size):
        return None
    left, top, right, bottom = frame
    clear_HW = np.ones(size[::-1], bool)
    clear_HW[top:bottom, left:right] = False
    return clear_HW


def _rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in mode RGB: transparency on white, 16 bits of grey cut to their high byte."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "RGB" and max(image.info.get("transparency", (0,))) > 255:
        del image.info["transparency"]  # a colour key of 16 bits says nothing about samples already cut to 8
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer).convert("RGB")
    if image.mode not in PLAIN_MODES:
        raise unsupported(f"{_format(image)} in Pillow's mode {image.mode}: no agreed black and white")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation, 1 to 8, of a loaded image (loading a TIFF applies and removes it)."""
    if image.format == "JXL":
        return 1  # JPEG XL has an orientation of its own, which its decoder applies
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


def _unidentified(data: bytes) -> ImageError:
    kind = looks_like(data)
    if kind in FORMATS or kind in plugins.PLUGINS:
        return ImageError(f"damaged {kind}: its header cannot be read")
    return unsupported(kind, "save it as PNG or JPEG") if kind in PICTURES else ImageError(f"not an image: looks like {kind}")


def _cause(error: Exception) -> str:
    """Return the error's message on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
