"""Patch selection against decoding the JPEG it starts from, and against the shape of the official code.

One thread, CPU time, JPEGs of 512 and 1024 px made of the two photographs that scikit-learn ships. The official shape
(docs of patch selection, HorizonTEL/DGS-Net) takes one patch after the other through numpy's complex FFT.
"""

from __future__ import annotations

import argparse
import io
import time

import numpy as np
import torch
from measure import median_seconds, publish
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from threadpoolctl import threadpool_limits

from nullscope.ops.patches import PatchParams, select

PATCH_PX, GRID = 32, 7
LOWEST, HIGHEST = 24, 25
PARAMS = PatchParams(patch_px=PATCH_PX, grid=GRID, fill="repeat")
SIDES_PX = (512, 1024)


def jpeg_of(photograph: NDArray[np.uint8], side_px: int, quality: int) -> bytes:
    """Return a square JPEG of ``side_px``: the photograph's middle, enlarged.

    Noise as a sensor's makes it no easier to decode than a photograph of that size.
    """
    square = Image.fromarray(photograph).crop((106, 0, 533, 427)).resize((side_px, side_px), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(side_px).normal(0, 3, (side_px, side_px, 3))
    noisy = np.clip(np.asarray(square) + noise, 0, 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG, as every stage reads them."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def select_by_loop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The official code's shape: a Python loop over patches, complex FFT in float64, a canvas filled cell by cell."""
    rows, columns = image.shape[0] // PATCH_PX, image.shape[1] // PATCH_PX
    patches, entropies = [], []
    for row in range(rows):
        for column in range(columns):
            patch = image[row * PATCH_PX : (row + 1) * PATCH_PX, column * PATCH_PX : (column + 1) * PATCH_PX]
            patches.append(patch)
            entropies.append(entropy_of(patch))
    order = np.argsort(entropies, kind="stable")
    canvas = np.zeros((GRID * PATCH_PX, GRID * PATCH_PX, 3), np.uint8)
    for cell, position in enumerate([*order[:LOWEST], *order[-HIGHEST:]]):
        top, left = PATCH_PX * (cell // GRID), PATCH_PX * (cell % GRID)
        canvas[top : top + PATCH_PX, left : left + PATCH_PX] = patches[position]
    return canvas


def entropy_of(patch: NDArray[np.uint8]) -> float:
    """The spectral entropy of one patch in bits."""
    gray = 0.299 * patch[:, :, 0] + 0.587 * patch[:, :, 1] + 0.114 * patch[:, :, 2]
    power = np.abs(np.fft.fftshift(np.fft.fft2(gray / 255))) ** 2
    share = power / (np.sum(power) + 1e-12)
    return float(-np.sum(share * np.log2(share + 1e-12)))


def measure(name: str, content: bytes, rounds: int) -> dict[str, object]:
    """Return one row of the table. Raises `ValueError` if the two selections differ."""
    image = decode(content)
    if not np.array_equal(select(image, PARAMS), select_by_loop(image)):
        raise ValueError(f"{name}: `select` and the loop chose different patches")
    seconds = median_seconds(
        {"decode": lambda: decode(content), "select": lambda: select(image, PARAMS), "loop": lambda: select_by_loop(image)},
        rounds=rounds,
        clock=time.process_time,
    )
    return {
        "image": name,
        "side px": image.shape[0],
        "jpeg kB": len(content) / 1e3,
        "decode ms": seconds["decode"] * 1e3,
        "select ms": seconds["select"] * 1e3,
        "loop ms": seconds["loop"] * 1e3,
        "select / decode": seconds["select"] / seconds["decode"],
        "loop / select": seconds["loop"] / seconds["select"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="rounds of interleaved timing (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name.removesuffix(".jpg") for name in ("china.jpg", "flower.jpg")]
    photographs = dict(zip(names, load_sample_images().images, strict=True))
    with threadpool_limits(1):
        rows = [
            measure(name, jpeg_of(photograph, side, options.quality), options.rounds)
            for side in SIDES_PX
            for name, photograph in photographs.items()
        ]
    publish("patch_selection", rows, rounds=options.rounds, jpeg_quality=options.quality, threads=1, clock="process CPU time")


if __name__ == "__main__":
    main()
