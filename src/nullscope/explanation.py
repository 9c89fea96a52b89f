"""Which parts of an image spoke for "generated": each is blanked in turn, and the logit moves.

Occlusion (Zeiler & Fergus 2014) and not a gradient: it asks the detector about images that it could have been given, holds for
every detector, and its numbers are differences of logits. A patch is blanked with its own mean colour: the texture goes, which is
what detectors of generated images read, and brightness and colour stay. What patches say together is not the sum of what each
says alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nullscope.core.contracts import image_id
from nullscope.images.decoder import decode
from nullscope.prediction import Judge

GRID = 8  # cells along a side of an image that a detector reads as a whole


@dataclass(frozen=True)
class Explanation:
    """What every cell of the picture that a detector reads does to the logit."""

    picture_HWC: NDArray[np.uint8]  # the mosaic of selected patches, or the image
    rows: int
    columns: int
    logit: float
    change_N: NDArray[np.float64]  # logit less the logit without the cell, row by row; above 0: the cell speaks for "generated"


def explain(judge: Judge, data: bytes) -> Explanation:
    """Return what the cells of an image, the bytes of a file, do to its logit.

    Raises `ImageError` (a `ValueError`) if the image is refused, `ValueError` for a detector that reads captions: a caption of an
    image with a blank would be another one.
    """
    if judge.needs_captions:
        raise ValueError(f"{judge.facts.detector} reads the image's caption too; its patches cannot be blanked alone")
    picture = judge.picture(decode(data, max_pixels=judge.facts.max_pixels))
    cells = _cells(picture, judge)
    versions = [picture, *(_blanked(picture, [cell]) for cell in cells)]
    logit, *without = judge.logits_of(versions, image_id(data))
    rows = len({cell[0].start for cell in cells})
    return Explanation(picture, rows, len(cells) // rows, logit, logit - np.array(without))


def logit_without(judge: Judge, data: bytes, found: Explanation, cells: NDArray[np.integer]) -> float:
    """Return the logit of an image with several cells blanked at once, by their numbers in ``found.change_N``."""
    all_cells = _cells(found.picture_HWC, judge)
    return judge.logits_of([_blanked(found.picture_HWC, [all_cells[at] for at in cells])], image_id(data))[0]


def _cells(picture_HWC: NDArray[np.uint8], judge: Judge) -> list[tuple[slice, slice]]:
    """Return the cells of a picture, row by row: the patches of a mosaic, or a grid."""
    height, width = picture_HWC.shape[:2]
    if judge.detector.transform.kind == "patches":
        rows = columns = judge.patches.grid
    else:
        rows, columns = min(GRID, height), min(GRID, width)
    ys, xs = (np.linspace(0, side, count + 1).astype(int) for side, count in ((height, rows), (width, columns)))
    return [(slice(ys[y], ys[y + 1]), slice(xs[x], xs[x + 1])) for y in range(rows) for x in range(columns)]


def _blanked(picture_HWC: NDArray[np.uint8], cells: list[tuple[slice, slice]]) -> NDArray[np.uint8]:
    picture = picture_HWC.copy()
    for cell in cells:
        picture[cell] = picture[cell].reshape(-1, 3).mean(0).round()
    return picture
