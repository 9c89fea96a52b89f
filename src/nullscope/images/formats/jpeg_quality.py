"""The quality a JPEG was saved at, estimated from its luminance quantisation table.

The Independent JPEG Group's encoder (libjpeg, and with it Pillow, OpenCV and most software) scales one standard table:
S = 5000 // q below quality 50 and 200 - 2 q from there on, entry = (S * standard + 50) // 100, clipped to 1..255
(libjpeg ``jcparam.c``, jpeg_quality_scaling and jpeg_add_quant_table). The hundred tables differ from one another, so a file
of that family is recognised exactly. Cameras and Photoshop use tables of their own: they get the quality whose table is
nearest in mean absolute log ratio, which weighs all 64 frequencies alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# ITU-T T.81 annex K.1, luminance, row by row
STANDARD_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def _standard_tables() -> NDArray[np.int64]:
    """Return the tables of the qualities 1 to 100: (100, 64)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((scale * STANDARD_LUMINANCE + 50) // 100, 1, 255)


LOG_TABLES = np.log(_standard_tables())


def estimate_quality(luminance: Sequence[int]) -> int:
    """Return the quality, 1 to 100, of 64 quantisation steps in row order; of two equally near ones the lower."""
    log_table = np.log(np.maximum(np.asarray(luminance), 1))  # a step of 0 is illegal, and seen in damaged files
    return 1 + int(np.abs(LOG_TABLES - log_table).mean(axis=1).argmin())
