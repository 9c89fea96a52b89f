"""The bad-input zoo: files as data sets hold them, made here and not committed."""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
TALL = (48, 40)  # (H, W) of the zoo's photographs


def photo(seed: int, shape: tuple[int, int] = TALL) -> np.ndarray:
    """Return a picture with gradients and noise: (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = [128 + 80 * np.sin(rows / 7 + k) * np.cos(columns / 5 + seed) for k in range(3)]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 12, (*shape, 3)), 0, 255).astype(np.uint8)


def save(image: Image.Image | np.ndarray, format: str, **options: Any) -> bytes:
    """Return an image's file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    """Return an EXIF block with an orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png16(samples_HWC: np.ndarray, *chunks: bytes) -> bytes:
    """Return a PNG of 16 bits per sample with 1 (grey) or 3 (RGB) channels, which Pillow cannot write."""
    height, width, channels = samples_HWC.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples_HWC)
    body = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def animated(format: str) -> bytes:
    """Return an animation whose first frame is red and whose second is blue."""
    frames = [Image.new("RGB", TALL[::-1], colour) for colour in ("red", "blue")]
    return save(frames[0], format, save_all=True, append_images=frames[1:], duration=100)


@functools.cache
def good_files() -> dict[str, bytes]:
    """Return file name -> bytes of unusual files that are images all the same."""
    rgba = np.dstack([photo(4), np.full(TALL, 255, np.uint8)])
    rgba[:10, :, 3] = 0
    palette = Image.fromarray(photo(5)).quantize(16)
    return {
        "plain.jpg": save(photo(0), "JPEG", quality=90),
        "UPPER.JPG": save(photo(1), "JPEG", quality=75),
        "extra.dots.v2.png": save(photo(2), "PNG"),
        "noextension": save(photo(3), "PNG"),
        "alpha.png": save(rgba, "PNG"),
        "palette.png": save(palette, "PNG", transparency=0),
        "cmyk.jpg": save(Image.fromarray(photo(6)).convert("CMYK"), "JPEG"),
        "grey16.png": png16(photo(7)[:, :, :1].astype(np.uint16) * 257),
        "rgb16.png": png16(photo(8).astype(np.uint16) * 257),
        "bit.png": save(Image.fromarray(photo(9)).convert("1"), "PNG"),
        "animated.gif": animated("GIF"),
        "animated.webp": animated("WEBP"),
        "rotated.jpg": save(photo(10, (40, 64)), "JPEG", exif=turned(6)),
        "wrong_name.png": save(photo(11), "WEBP"),
        "twin_a.png": save(photo(12), "PNG"),
        "twin_b.png": save(photo(12), "PNG"),
    }


@functools.cache
def bad_files() -> dict[str, bytes]:
    """Return file name -> bytes of what lies between images and is to be refused (``strip.png`` for its size only)."""
    return {
        "truncated.jpg": save(photo(13), "JPEG")[:-200],
        "cut_end.png": save(photo(14), "PNG")[:-6],
        "bad_checksum.png": damaged_png(),
        "empty.png": b"",
        "text.png": b"<not an image>, said the server in plain words\n" * 9,
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "strip.png": save(photo(15, (31, 500)), "PNG"),
        "huge.png": save(Image.new("1", (12_000, 12_000)), "PNG"),
        "float.tiff": save(Image.fromarray(photo(16)[:, :, 0].astype(np.float32)), "TIFF"),
        "icon.ico": save(photo(17), "ICO"),
    }


def damaged_png() -> bytes:
    """Return a PNG whose text chunk, behind the pixels, has one flipped bit."""
    good = save(photo(18), "PNG")
    chunk = bytearray(png_chunk(b"tEXt", b"Comment\0made by a generator"))
    chunk[-1] ^= 1
    return good[:-12] + bytes(chunk) + good[-12:]


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """Write {path relative to ``root``: bytes}, all of the same old age; return ``root``."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return root
