"""TIFF before Pillow sees it: what the tags of the first directory say (TIFF 6.0, and TIFF/EP for camera raw files).

Pillow's mode loses the depth of a sample, whether white is 0, and that the first picture of a camera raw file is a thumbnail.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nullscope.images.formats import jpeg
from nullscope.images.formats.errors import ImageError, truncated, unsupported

KINDS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q"}  # the types of whole numbers that are read
MOST_ENTRIES, MOST_NUMBERS = 4096, 2**22  # of a directory; of one of its tags
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS, STRIP_BYTES, PLANES = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUBDIRECTORIES, FORMAT = 322, 323, 324, 325, 330, 339
DNG, CFA, LINEAR_RAW = 50706, 32803, 34892
UNCOMPRESSED, JPEG = 1, 7
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = range(4)
COLOURS = {WHITE_IS_ZERO: "grey", BLACK_IS_ZERO: "grey", RGB: "RGB", PALETTE: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
DEPTHS = {"grey": (1, 2, 4, 8, 12, 16), "palette": (1, 2, 4, 8)}  # bits a sample; of the others 8 and 16


@dataclass(frozen=True)
class Tiff:
    """What Pillow's mode does not tell."""

    bits: int  # of a sample
    white_is_zero: bool


class _Tags(dict):
    """The whole numbers of a directory by their tags; a tag that is missing, or no number, is empty."""

    def __missing__(self, tag: int) -> tuple[int, ...]:
        return ()

    def first(self, tag: int, otherwise: int) -> int:
        return self[tag][0] if self[tag] else otherwise


def checked(data: bytes) -> Tiff:
    """Return what the tags of the first picture say. Raises `ImageError` if it is no picture that is read, or lacks a part."""
    tags = _tags(data)
    photometric = tags.first(PHOTOMETRIC, -1)
    if DNG in tags or photometric in (CFA, LINEAR_RAW) or (SUBDIRECTORIES in tags and tags.first(SUBFILE, 0) & 1):
        raise unsupported("a camera raw file", "develop it and save it as TIFF, PNG or JPEG")
    if tags.first(SUBFILE, 0) & 1:
        raise unsupported("a TIFF whose first picture is a reduced copy of another", "save the picture by itself")
    if photometric < 0:
        raise ImageError("damaged TIFF: it does not say what its samples mean")
    samples = tags.first(SAMPLES, 1)
    bits, formats = tags[BITS] or (1,), tags[FORMAT] or (1,)
    if any(kind not in (1, 4) for kind in formats):
        raise unsupported("a TIFF of floating-point, signed or complex samples: no agreed black and white")
    colour = COLOURS.get(photometric)
    if colour in (None, "CIELab"):
        raise unsupported(f"a TIFF of the colour space {colour or photometric}")
    if len(set(bits)) > 1:
        raise unsupported(f"a TIFF of {', '.join(map(str, bits[:8]))} bits a sample")
    if bits[0] not in DEPTHS.get(colour, (8, 16)):
        raise unsupported(f"a {colour} TIFF of {bits[0]} bits a sample")
    _check_parts(data, tags, samples, bits[0])
    return Tiff(bits[0], photometric == WHITE_IS_ZERO)


def described(data: bytes) -> str:
    """Return what a sound TIFF is that Pillow does not read."""
    tags = _tags(data)
    colour, bits, samples = COLOURS[tags.first(PHOTOMETRIC, BLACK_IS_ZERO)], tags.first(BITS, 1), tags.first(SAMPLES, 1)
    order = {b"II": "little-endian", b"MM": "big-endian"}[data[:2]]
    white = ", white is 0" if tags.first(PHOTOMETRIC, BLACK_IS_ZERO) == WHITE_IS_ZERO else ""
    planes = ", in planes" if tags.first(PLANES, 1) == 2 else ""
    return (
        f"a {colour} TIFF of {samples} x {bits} bits a pixel ({order}{white}{planes}, compression {tags.first(COMPRESSION, 1)})"
    )


def _tags(data: bytes) -> _Tags:
    """Return the numbers of the first directory. Raises `ImageError` if it does not lie within the file."""
    order, big = {b"II": "<", b"MM": ">"}[data[:2]], data[2:4] in (b"+\0", b"\0+")
    entry, offset = (order + "HHQ8s", order + "Q") if big else (order + "HHI4s", order + "I")
    try:
        at = struct.unpack_from(offset, data, 8 if big else 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        if count > MOST_ENTRIES:
            raise struct.error
        start, size, tags = at + (8 if big else 2), struct.calcsize(entry), _Tags()
        for number in range(count):
            tag, kind, length, value = struct.unpack_from(entry, data, start + number * size)
            tags.setdefault(tag, _numbers(data, kind, length, value, order, offset))
        return tags
    except struct.error:
        raise ImageError("damaged TIFF: its directory cannot be read") from None


def _numbers(data: bytes, kind: int, length: int, value: bytes, order: str, offset: str) -> tuple[int, ...]:
    if kind not in KINDS or length > MOST_NUMBERS:
        return ()
    numbers = f"{order}{length}{KINDS[kind]}"
    if struct.calcsize(numbers) > len(value):
        return struct.unpack_from(numbers, data, struct.unpack(offset, value)[0])
    return struct.unpack_from(numbers, value)


def _check_parts(data: bytes, tags: _Tags, samples: int, bits: int) -> None:
    """Raise `ImageError` unless all strips or tiles are there, within the file, and long enough where they are not compressed."""
    width, height = tags.first(WIDTH, 0), tags.first(HEIGHT, 0)
    tiled = TILES in tags
    across, down = (
        (tags.first(TILE_WIDTH, 0), tags.first(TILE_HEIGHT, 0)) if tiled else (width, min(height, tags.first(ROWS, height)))
    )
    places, sizes = (tags[TILES], tags[TILE_BYTES]) if tiled else (tags[STRIPS], tags[STRIP_BYTES])
    if not (width and height and across and down):
        raise ImageError("damaged TIFF: its header cannot be read")
    in_planes = tags.first(PLANES, 1) == 2
    count = -(-width // across) * -(-height // down) * (samples if in_planes else 1)
    if len(places) < count or (sizes and len(sizes) < count):
        raise truncated("TIFF", f"{count} parts were expected, {min(len(places), len(sizes))} are there")
    row = (across * bits * (1 if in_planes else samples) + 7) // 8
    for number, (place, size) in enumerate(zip(places[:count], sizes[:count], strict=False)):
        rows = down if tiled else min(down, height - number % -(-height // down) * down)
        least = row * rows if tags.first(COMPRESSION, 1) == UNCOMPRESSED and tags.first(PHOTOMETRIC, 1) != 6 else 1
        if size < least or place + min(size, least) > len(data):
            raise truncated("TIFF", f"part {number + 1} of {count} is not whole")
        if tags.first(COMPRESSION, UNCOMPRESSED) == JPEG:
            jpeg.checked(data[place : place + size])  # libtiff makes grey of what is missing


@cache
def silence() -> None:
    """Keep libtiff from writing to standard error behind Python's back: what it says of a refused file, Pillow raises.

    Pillow brings a libtiff of its own or uses the system's: it is found among the libraries that this process has open. Where
    there is no list of them (macOS, Windows), libtiff goes on writing.
    """
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    for path in sorted({line.split(maxsplit=5)[5] for line in lines if "libtiff" in line}):
        library = ctypes.CDLL(path)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name)(None)
