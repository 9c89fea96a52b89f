"""Two test images, each beside the patches that a patch detector sees of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image

from nullscope.core.contracts import FAKE, REAL, ContractError
from nullscope.report.figures.canvas import WIDTH, Figure, png
from nullscope.shards.reading import list_shards, read_shard


@dataclass(frozen=True)
class Example:
    """One test image beside its patch-selected mosaic, (H, W, 3) uint8 both."""

    image_id: str
    label: int
    original_HWC: NDArray[np.uint8]
    mosaic_HWC: NDArray[np.uint8]


def read_examples(shards: Path) -> list[Example]:
    """Return the first real and the first fake of the test shards, each beside its mosaic."""
    mosaics: dict[int, tuple[str, bytes]] = {}
    for image_id, label, data in _samples(shards / "patches/test"):
        mosaics.setdefault(label, (image_id, data))
        if {REAL, FAKE} <= set(mosaics):
            break
    wanted = {image_id: (label, data) for label, (image_id, data) in sorted(mosaics.items())}
    found = {}
    for image_id, _, data in _samples(shards / "images/test"):
        if image_id in wanted:
            found[image_id] = data
        if len(found) == len(wanted):
            return [Example(key, label, _decode(found[key]), _decode(mosaic)) for key, (label, mosaic) in wanted.items()]
    raise ContractError(f"{shards}: images/test lacks {sorted(set(wanted) - set(found))} of patches/test; run `dvc repro shard`")


def _samples(directory: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield (image_id, label, content) of every sample of a folder of shards, in order."""
    for shard in list_shards(directory):
        yield from read_shard(shard.path)


def _decode(data: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def examples_figure(examples: list[Example], grid: int) -> Figure:
    """Return every example beside its mosaic of ``grid`` x ``grid`` patches."""
    canvas = Canvas(figsize=(WIDTH, 2.2))
    pairs = canvas.subplots(1, 2 * len(examples)).reshape(-1, 2)
    for (left, right), example in zip(pairs, examples, strict=True):
        kind = "fake" if example.label == FAKE else "real"
        height, width = example.original_HWC.shape[:2]
        left.imshow(example.original_HWC)
        left.set_title(f"A {kind}, {width} x {height} px")
        right.imshow(_gaps(example.mosaic_HWC, grid))
        right.set_title(f"{grid} x {grid} patches of {example.mosaic_HWC.shape[0] // grid} px")
    for axes in pairs.flat:
        axes.axis("off")
    caption = (
        "A test image as it is, and right of it the patches that a patch detector sees instead, row by row from the lowest "
        "to the highest spectral entropy, with white gaps drawn between them. Little of the scene is left, but many traces "
        "of how the image was made."
    )
    return Figure("examples", "What patch selection keeps", caption, describe_examples(examples, grid), png(canvas))


def _gaps(mosaic_HWC: np.ndarray, grid: int) -> np.ndarray:
    """Return a mosaic with white lines of 1/16 patch between its patches."""
    side = mosaic_HWC.shape[0] // grid
    gap = max(1, side // 16)
    cells = mosaic_HWC.reshape(grid, side, grid, side, 3)
    padded = np.pad(cells, ((0, 0), (0, gap), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return padded.reshape(grid * (side + gap), grid * (side + gap), 3)[:-gap, :-gap]


def describe_examples(shown: list[Example], grid: int) -> str:
    """Return what the examples show."""
    kinds = " and ".join(f"a {'fake' if example.label == FAKE else 'real'} test image" for example in shown)
    return f"On the left {kinds}; on the right, for each, the mosaic of {grid * grid} of its patches."
