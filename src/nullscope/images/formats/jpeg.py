"""JPEG before Pillow sees it: what its markers say, whether it can be read, and whether all of its picture is there.

libjpeg fills what is missing with grey, or leaves it coarse, and says so in a warning that Pillow drops. ITU-T T.81.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from nullscope.images.formats.errors import ImageError, truncated, unsupported

MOST_SCANS = 500  # of a file; encoders write about ten. Nvidia's DALI has the same limit
MOST_WORK = 4 * 10**9  # scans times pixels: thirty scans of the largest image; each passes over all coefficients
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2  # frames that libjpeg reads, and two with arithmetic coding
READ = (BASELINE, EXTENDED, PROGRESSIVE, 0xC9, 0xCA)
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
NOT_READ = {0xC3: "a lossless JPEG", 0xCB: "a lossless JPEG", 0xF7: "JPEG-LS"}
END, SCAN, RESTARTS = 0xD9, 0xDA, 0xDD  # markers
ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
FILLER = bytes(range(0x11, 0xF1, 0x0D)) * 4  # entropy-coded data that nothing needs; no 0xff in it
GREY = {127, 128}  # what libjpeg puts where coefficients are missing; inverted in CMYK


@dataclass
class Component:
    """One of the colours."""

    horizontal: int  # sampling factors
    vertical: int
    precise: dict[int, int] = field(default_factory=dict)  # coefficient -> bits of it that have not been sent yet


@dataclass
class Jpeg:
    """What the markers of the first image say."""

    frame: int = 0  # marker
    width: int = 0
    height: int = 0
    components: dict[int, Component] = field(default_factory=dict)
    interval: int = 0  # MCUs from one restart marker to the next; 0: there are none
    scans: int = 0
    holes: list[int] = field(default_factory=list)  # where entropy-coded data end: before every marker within and behind a scan


def checked(data: bytes) -> Jpeg:
    """Return what the markers say. Raises `ImageError` if such a file is not read, is too much work, or lacks a part."""
    jpeg, at, markers = Jpeg(), 2, _Markers(data)
    while True:
        marker, at = markers.next(at)
        if marker == END:
            break
        if marker in ALONE:
            continue
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(segment)
        if marker in FRAMES or marker in NOT_READ:
            _read_frame(jpeg, marker, segment)
        elif marker == RESTARTS:
            jpeg.interval = int.from_bytes(segment[:2], "big")
        elif marker == SCAN:
            at = _read_scan(jpeg, markers, segment, at)
    _check_whole(jpeg)
    return jpeg


class _Markers:
    """All places of a file where a marker may stand: 0xff and another byte than 0 and 0xff."""

    def __init__(self, data: bytes) -> None:
        levels = np.frombuffer(data, np.uint8)
        places = np.flatnonzero(levels[:-1] == 0xFF)
        codes = levels[places + 1]
        real = (codes != 0) & (codes != 0xFF)
        self.places, self.codes = places[real], codes[real]

    def next(self, at: int) -> tuple[int, int]:
        """Return the marker at or behind ``at``, and where it ends. Raises `ImageError` if there is none."""
        number = np.searchsorted(self.places, at)
        if number == len(self.places):
            raise truncated("JPEG", "its end is missing")
        return int(self.codes[number]), int(self.places[number]) + 2


def _read_frame(jpeg: Jpeg, marker: int, segment: bytes) -> None:
    if marker not in READ:
        raise unsupported(NOT_READ.get(marker, "a hierarchical JPEG"))
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise ImageError("damaged JPEG: its header cannot be read")
    if segment[0] != 8:
        raise unsupported(f"a JPEG of {segment[0]} bits a sample")
    jpeg.frame, jpeg.height, jpeg.width = marker, int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    for place in range(6, 6 + 3 * segment[5], 3):
        jpeg.components[segment[place]] = Component(segment[place + 1] >> 4, segment[place + 1] & 15)


def _read_scan(jpeg: Jpeg, markers: _Markers, segment: bytes, at: int) -> int:
    """Note what a scan brings; return where it ends. ``at``: behind its header."""
    jpeg.scans += 1
    if jpeg.scans > MOST_SCANS or (jpeg.scans > 1 and jpeg.scans * jpeg.width * jpeg.height > MOST_WORK):
        raise ImageError(f"a JPEG of more than {jpeg.scans - 1} scans of {jpeg.width}x{jpeg.height} px: more work than the limit")
    count = segment[0] if segment else 0
    if not jpeg.components or len(segment) < 4 + 2 * count:
        raise ImageError("damaged JPEG: a scan without a header")
    names = [segment[1 + 2 * number] for number in range(count)]
    first, last, low = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count] & 15
    for name in names:
        if name in jpeg.components:
            jpeg.components[name].precise.update(dict.fromkeys(range(first, min(last, 63) + 1), low))
    restarts = 0
    while True:
        marker, at = markers.next(at)
        jpeg.holes.append(at - 2)
        if not 0xD0 <= marker <= 0xD7:
            break
        restarts += 1
    if jpeg.interval and restarts < (expected := (_units(jpeg, names) - 1) // jpeg.interval):
        raise truncated("JPEG", f"{expected - restarts} of the {expected + 1} parts of a scan are missing")
    return at - 2


def _units(jpeg: Jpeg, names: list[int]) -> int:
    """Return the number of MCUs of a scan (T.81, A.2)."""
    most = [max(getattr(part, axis) for part in jpeg.components.values()) or 1 for axis in ("horizontal", "vertical")]
    one = jpeg.components.get(names[0]) if len(names) == 1 else None
    share = (one.horizontal, one.vertical) if one else most  # a scan of one component has its own blocks for units
    sides = (-(-size * part // whole) for size, part, whole in zip((jpeg.width, jpeg.height), share, most, strict=True))
    across, down = (-(-side // (8 if one else 8 * whole)) for side, whole in zip(sides, most, strict=True))
    return across * down


def _check_whole(jpeg: Jpeg) -> None:
    """Raise `ImageError` unless every coefficient of every component was sent to its last bit."""
    if not jpeg.components or not jpeg.scans:
        raise ImageError("damaged JPEG: it has no header or no pixels")
    needed = range(64) if jpeg.frame in (PROGRESSIVE, 0xCA) else range(1)  # other scans bring all coefficients at once
    for component in jpeg.components.values():
        if any(component.precise.get(coefficient, 1) for coefficient in needed):
            raise truncated("JPEG", "not all of its scans are there")


def check_filled(data: bytes, jpeg: Jpeg, image: Image.Image) -> None:
    """Raise `ImageError` if the coefficients end before the picture does. ``image``: the decoded picture.

    Other data are written behind the coefficients. Of a whole picture they change nothing, since nothing reads them. Where
    coefficients are missing they are taken for those, and another picture comes out. A picture of one scan whose last corner is
    not quite grey is whole: grey is what libjpeg puts there. So nearly all are decoded once.
    """
    if jpeg.scans == 1 and not _corner(image) <= GREY:
        return
    pieces, at = [], 0
    for hole in jpeg.holes:
        pieces += [data[at:hole], FILLER]
        at = hole
    filled = Image.open(io.BytesIO(b"".join([*pieces, data[at:]])), formats=["JPEG"])
    if not np.array_equal(np.asarray(filled), np.asarray(image)):
        raise truncated("JPEG", "its pixels end before the picture does")


def _corner(image: Image.Image) -> set[int]:
    """Return the levels of the last 2 x 2 pixels, which lie in the last block of every component."""
    width, height = image.size
    return set(image.crop((max(0, width - 2), max(0, height - 2), width, height)).tobytes())
