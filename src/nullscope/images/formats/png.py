"""PNG before Pillow sees it: its chunks are checked, and what no pixel depends on is left out. W3C's PNG, third edition.

Pillow refuses files with more than a megabyte of text or profile, which generators of images write, and gives a colour key of 16
bits, or of fewer than 8, as if it were of 8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nullscope.images.formats.errors import ImageError, truncated, unsupported

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
GREY, RGB, PALETTE = 0, 2, 3  # colour types
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}
NEEDED = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))  # for the pixels; and tRNS, where it is no colour key
EXIF, TEXT = b"eXIf", b"iTXt"
XMP = b"XML:com.adobe.xmp\0"  # how a text with an orientation begins
MOST = 2**20  # bytes of such a block that are looked at
STEPS = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))  # Adam7: row, column
PIECE = 2**16  # bytes that are inflated at once


@dataclass(frozen=True)
class Png:
    """What is left of a PNG for Pillow, and what Pillow is not told."""

    data: bytes
    pixels: list[memoryview]  # compressed
    header: tuple[int, ...]
    depth: int  # bits a sample
    colour: int  # type
    key: tuple[int, ...] | None  # the colour that is transparent, in samples of the file's own depth


def checked(data: bytes) -> Png:
    """Return a PNG whose chunks are all there. Raises `ImageError` if a checksum is wrong or the end is missing."""
    kept, pixels, key, header = [SIGNATURE], [], None, None
    for name, content, whole in _chunks(data):
        if name == b"CgBI":
            raise unsupported("a PNG as Xcode rewrites it for iPhones (CgBI)", "take the original file")
        if name == b"IHDR":
            header = header or _header(content)
        elif name == b"IDAT":
            pixels.append(content)
        elif name == b"tRNS" and header and header[3] in (GREY, RGB):
            key = _key(content, header)
            continue
        if name in NEEDED or name in (b"tRNS", EXIF) or (name == TEXT and content.startswith(XMP) and len(content) < MOST):
            kept.append(whole)
    if header is None or not pixels:
        raise ImageError("damaged PNG: it has no header or no pixels")
    left = data if sum(map(len, kept)) == len(data) else b"".join(kept)
    return Png(left, pixels, header, header[2], header[3], key)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview | bytes, memoryview]]:
    """Yield name, content and the whole of every chunk up to the end."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageError(f"damaged PNG: wrong checksum in the chunk {_printable(data[at + 4 : at + 8])}")
        name = data[at + 4 : at + 8]
        yield name, view[at + 8 : end - 4] if name == b"IDAT" else data[at + 8 : end - 4], view[at:end]
        if name == b"IEND":
            return
        at = end
    raise truncated("PNG", "its end is missing")


def _printable(name: bytes) -> str:
    return "".join(chr(byte) if chr(byte).isalpha() and byte < 128 else f"\\x{byte:02x}" for byte in name)


def _header(content: bytes) -> tuple[int, ...]:
    if len(content) != HEADER.size:
        raise ImageError("damaged PNG: its header cannot be read")
    header = HEADER.unpack(content)
    if not (header[0] and header[1]) or header[3] not in CHANNELS or header[2] not in (1, 2, 4, 8, 16) or any(header[4:6]):
        raise ImageError("damaged PNG: its header cannot be read")
    return header


def _key(content: bytes, header: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the colour key; None where it has a wrong length, which viewers ignore."""
    count = CHANNELS[header[3]]
    if len(content) != 2 * count:
        return None
    return tuple(sample & (2 ** header[2] - 1) for sample in struct.unpack(f">{count}H", content))


def check_pixels(png: Png, image: Image.Image) -> None:
    """Raise `ImageError` if the compressed data hold fewer bytes than the header asks for. More are ignored, as by viewers.

    ``image``: the decoded picture. Pillow leaves at 0 what is missing. So where the last row of a picture that came row by row
    is not all 0, nothing is missing, and the data need not be inflated a second time.
    """
    width, height = image.size
    if not png.header[6] and any(image.crop((0, height - 1, width, height)).tobytes()):
        return
    expected, found, inflate = _size(png.header), 0, zlib.decompressobj()
    try:
        for piece in png.pixels:
            todo = piece
            while todo and found < expected and not inflate.eof:
                found += len(inflate.decompress(todo, PIECE))
                todo = inflate.unconsumed_tail
            while found < expected and not inflate.eof and not todo:  # what is held back behind the last input
                more = len(inflate.decompress(b"", PIECE))
                if not more:
                    break
                found += more
    except zlib.error as error:
        raise ImageError(f"damaged PNG: {error}") from None
    if found < expected:
        raise truncated("PNG", f"its pixels take {expected} bytes, {found} are there")


def _size(header: tuple[int, ...]) -> int:
    """Return the bytes of the pixels and of the filter's byte before every row."""
    width, height, depth, colour = header[:4]
    bits = depth * CHANNELS[colour]
    if not header[6]:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for row, row_step, column, column_step in STEPS:
        rows, columns = (
            max(0, -(-(size - at) // step)) for size, at, step in ((height, row, row_step), (width, column, column_step))
        )
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


def transparent(png: Png, grey16_HW: NDArray | None, rgb_HWC: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return where the pixels have the colour key, (H, W); None where the file has no key.

    ``grey16_HW`` are the samples of a grey image of 16 bits; None for others. ``rgb_HWC`` is what Pillow makes of the image.
    """
    if png.key is None:
        return None
    if png.depth == 16:
        return (_samples_HWC(png.data) == png.key).all(axis=2) if png.colour == RGB else grey16_HW == png.key[0]
    scale = 255 // (2**png.depth - 1)
    return (rgb_HWC == np.multiply(png.key if png.colour == RGB else png.key * 3, scale)).all(axis=2)


def _samples_HWC(data: bytes) -> NDArray[np.uint16]:
    """Return the samples of an RGB image of 16 bits, which Pillow cuts to 8."""
    import torch  # seconds, for a file that is rare
    from torchvision.io import ImageReadMode, decode_png

    file = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_png(file, mode=ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
