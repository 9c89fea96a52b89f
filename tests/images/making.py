"""Image files that Pillow does not write, made byte by byte as their specifications say."""

from __future__ import annotations

import struct
from itertools import accumulate

import numpy as np


def tiff(
    pixels: bytes, size: tuple[int, int], *, bits: int | tuple[int, ...] = 8, photometric: int = 1, order: str = "<", **tags
) -> bytes:
    """Return an uncompressed TIFF, in one strip or in those whose sizes the tag 279 says.

    Further ``tags`` are named ``t<number>`` and are whole numbers or tuples of them.
    """
    depths = bits if isinstance(bits, tuple) else (bits,)
    entries = {256: size[0], 257: size[1], 258: depths, 259: 1, 262: photometric, 277: len(depths), 278: size[1]}
    entries |= {279: len(pixels), **{int(name[1:]): value for name, value in tags.items()}}
    strips = entries[279] if isinstance(entries[279], tuple) else (entries[279],)
    entries[273] = (0,) * len(strips)
    values = {tag: value if isinstance(value, tuple) else (value,) for tag, value in sorted(entries.items())}
    start = 8 + 2 + 12 * len(values) + 4
    extra_length = sum(len(content) for tag in values if len(content := _content(tag, values[tag], order)) > 4)
    values[273] = tuple(accumulate(strips[:-1], initial=start + extra_length))
    extra, directory = b"", b""
    for tag, numbers in values.items():
        content = _content(tag, numbers, order)
        field = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(order + "I", start + len(extra))
        extra += content if len(content) > 4 else b""
        directory += struct.pack(order + "HHI", tag, 4 if tag in LONG else 3, len(numbers)) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(values))
    return head + directory + b"\0\0\0\0" + extra + pixels


LONG = (256, 257, 273, 279, 330)  # tags of 32 bits


def _content(tag: int, numbers: tuple[int, ...], order: str) -> bytes:
    return struct.pack(f"{order}{len(numbers)}{'I' if tag in LONG else 'H'}", *numbers)


def packed(samples_HW: np.ndarray, bits: int) -> bytes:
    """Return rows of samples of ``bits`` bits each, the first in the highest bits, every row filled to a whole byte."""
    shifts = np.arange(bits - 1, -1, -1)
    flags = (samples_HW[:, :, None] >> shifts & 1).astype(np.uint8)
    return np.packbits(flags.reshape(len(samples_HW), -1), axis=1).tobytes()


def bmp32(rgba_HWC: np.ndarray) -> bytes:
    """Return a BMP of 32 bits with a mask for alpha (BITMAPV4HEADER, compression 3)."""
    height, width, _ = rgba_HWC.shape
    pixels = np.ascontiguousarray(rgba_HWC[::-1, :, [2, 1, 0, 3]]).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0) + masks + b"\0" * 52
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels
