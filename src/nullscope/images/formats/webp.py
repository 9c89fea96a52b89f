"""The size of a WebP by its header (RFC 9649): its decoder takes memory for all pixels at once, before Pillow knows a size."""

from __future__ import annotations


def size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels; (0, 0) of a header that cannot be read, which the decoder refuses."""
    name, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if name == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if name == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0
