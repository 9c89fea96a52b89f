"""The windows of an image with the lowest and the highest frequencies, as AIDE picks them (shilinyan99/AIDE, data/dct.py).

H and W pixels, N windows.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

WINDOW_PX, STRIDE_PX = 32, 16
BANDS = 6  # of i + j, each 64 / 6 wide and with both its ends; a coefficient of band b counts 2^b times, over the band's size
DIGITS = 9  # of a grade: what is equal but for rounding is equal on every processor


def picked_windows(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return four windows (4, 32, 32, 3): the lowest, the highest, the second lowest and the second highest grade.

    Of equal grades the first in the order of the rows is the lower one. An image with a single window gives it four times. Raises
    `ValueError` if a side is shorter than a window.
    """
    if min(image_HWC.shape[:2]) < WINDOW_PX:
        raise ValueError(f"expected sides of {WINDOW_PX} px or more, found {image_HWC.shape[1]}x{image_HWC.shape[0]}")
    order = np.argsort(grades(image_HWC), kind="stable")
    last = len(order) - 1
    chosen = order[[0, last, min(1, last), max(last - 1, 0)]]
    tops, lefts = np.divmod(chosen, _columns(image_HWC))
    return np.stack(
        [image_HWC[y : y + WINDOW_PX, x : x + WINDOW_PX] for y, x in zip(STRIDE_PX * tops, STRIDE_PX * lefts, strict=True)]
    )


def grades(image_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the grade of every window, (N,), row by row: the sum of log(1 + |DCT|) over colours and bands, weighed."""
    windows_RCKXX = sliding_window_view(image_HWC, (WINDOW_PX, WINDOW_PX), axis=(0, 1))[::STRIDE_PX, ::STRIDE_PX]
    rows = [_graded(row / 255) for row in windows_RCKXX]  # a row of windows at a time: all of them would take gigabytes
    return np.concatenate(rows).round(DIGITS)


def _graded(windows_NCXX: NDArray[np.float64]) -> NDArray[np.float64]:
    coefficients = COSINES @ windows_NCXX @ COSINES.T
    return np.einsum("ncij,ij->n", np.log1p(np.abs(coefficients)), WEIGHTS)


def _columns(image_HWC: NDArray[np.uint8]) -> int:
    return (image_HWC.shape[1] - WINDOW_PX) // STRIDE_PX + 1


def _cosines() -> NDArray[np.float64]:
    """Return the matrix (32, 32) of the orthonormal DCT-II."""
    k, x = np.mgrid[:WINDOW_PX, :WINDOW_PX]
    matrix = np.sqrt(2 / WINDOW_PX) * np.cos((2 * x + 1) * k * np.pi / (2 * WINDOW_PX))
    matrix[0] /= np.sqrt(2)
    return matrix


def _weights() -> NDArray[np.float64]:
    """Return what the logarithm of every coefficient counts, (32, 32)."""
    frequency, width = np.add(*np.mgrid[:WINDOW_PX, :WINDOW_PX]), 2 * WINDOW_PX / BANDS
    bands = [(frequency >= b * width) & (frequency <= (b + 1) * width) for b in range(BANDS)]
    return sum(2**b * band / band.sum() for b, band in enumerate(bands))


COSINES, WEIGHTS = _cosines(), _weights()
