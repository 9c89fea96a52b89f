"""Patch selection: keep the patches of lowest and of highest spectral entropy, lay them out as a mosaic.

NS-Net, section "Patch Selection"; the definition is that of the official code of its authors
(HorizonTEL/DGS-Net@1aed871 ``data/PatchSelectionTransform.py``): crop bottom and right to whole patches, luma
0.299 R + 0.587 G + 0.114 B on [0, 1], power spectrum |FFT2|^2 with its DC term, p = P / (sum P + 1e-12),
entropy = -sum p log2(p + 1e-12) in bits; the 24 lowest and the 25 highest of a 7 x 7 mosaic. We differ in two places: ties are
broken by position (theirs are undefined), and an image of fewer patches than the mosaic has cells repeats its ranked patches
instead of repeating some and leaving the rest black (``fill: black`` does as the official code).

H, W image size; p patch side; N patches of an image; C = grid * grid cells of the mosaic.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from nullscope.core.config import Params

EPSILON = 1e-12
LUMA = (0.299, 0.587, 0.114)
CHUNK_PX = 65_536  # pixels whose spectra are computed at once: they stay in the cache
CLOSE_BITS = 2e-5  # float32 entropies were seen 7e-7 from the float64 ones; two of them ten times as far apart are safe


class PatchParams(Params):
    """How an image becomes a mosaic."""

    patch_px: PositiveInt  # side of a patch; 32 in the papers
    grid: PositiveInt  # patches along a side of the mosaic; 7 in the papers (224 px)
    fill: Literal["repeat", "black"]  # what stands in the cells that an image of few patches leaves empty

    @property
    def cells(self) -> int:
        """Number of patches of a mosaic."""
        return self.grid**2

    @property
    def mosaic_px(self) -> int:
        """Side of a mosaic in pixels."""
        return self.grid * self.patch_px


def cut(image_HWC: NDArray[np.uint8], patch_px: int) -> NDArray[np.uint8]:
    """Cut an image into patches, row by row: (H, W, 3) -> (N, p, p, 3), a copy. What is left at the bottom and right goes.

    Raises `ValueError` if a side is shorter than a patch.
    """
    rows, columns = image_HWC.shape[0] // patch_px, image_HWC.shape[1] // patch_px
    if not rows or not columns:
        height, width = image_HWC.shape[:2]
        raise ValueError(f"{width}x{height} px: a side is shorter than a patch of {patch_px} px")
    whole = image_HWC[: rows * patch_px, : columns * patch_px]
    cells = whole.reshape(rows, patch_px, columns, patch_px, 3).swapaxes(1, 2)
    return cells.copy().reshape(-1, patch_px, patch_px, 3)  # a reshape alone is a view where the image is one patch wide


def spectral_entropy(patches_NPPC: NDArray[np.uint8], dtype: type = np.float64) -> NDArray[np.floating]:
    """Return the spectral entropy of patches (N, p, p, 3) uint8 in bits: (N,) of ``dtype``, which is also that of the sums.

    The spectrum of a real patch is mirrored: the real FFT computes p // 2 + 1 of its p columns, and the sums count those
    between the first and the last twice.
    """
    count, side = patches_NPPC.shape[:2]
    entropy_N, step = np.empty(count, dtype), max(1, CHUNK_PX // side**2)
    luma_weight = np.array(LUMA, dtype) / 255
    weight = _mirror_weight(side).to(torch.from_numpy(luma_weight)).repeat(side)
    for start in range(0, count, step):
        # A BLAS product of (N p p, 3) with the weights: a third of the time of torch's own matrix-vector product here.
        luma = np.dot(patches_NPPC[start : start + step].reshape(-1, 3).astype(dtype), luma_weight)
        squares = torch.view_as_real(torch.fft.rfft2(torch.from_numpy(luma).reshape(-1, side, side))).square_()
        power = (squares[..., 0] + squares[..., 1]).flatten(1)  # (n, p * (p // 2 + 1))
        power /= (power @ weight + EPSILON)[:, None]
        entropy_N[start : start + step] = -(power.mul_(torch.log2(power + EPSILON)) @ weight).numpy()
    return entropy_N


def rank(patches_NPPC: NDArray[np.uint8], cells: int) -> NDArray[np.int64]:
    """Return the positions of the selected patches in ascending order of entropy, ties by position: (min(N, cells),) int64.

    The ``cells // 2`` lowest and the ``cells - cells // 2`` highest; all of them where there are no more than ``cells``.

    The ranking is that of float64 at the price of float32: where neighbours in the float32 ranking lie closer than float32 can
    tell apart, and the choice depends on them, their entropies are computed again in float64 and rounded to 1e-9 bits, which
    makes equal patches equal again after rounding errors.
    """
    entropy_N = spectral_entropy(patches_NPPC, np.float32).astype(np.float64)
    order = np.argsort(entropy_N, kind="stable")
    unsure = order[_unsure(entropy_N[order], cells)]
    if len(unsure):
        entropy_N[unsure] = np.round(spectral_entropy(patches_NPPC[unsure]), 9)
        order = np.argsort(entropy_N, kind="stable")
    return order[_selected(len(order), cells)]


def _unsure(sorted_N: NDArray[np.float64], cells: int) -> NDArray[np.bool_]:
    """Say which places of a ranking may belong to the selection and lie too close to a neighbour to be sure of their order."""
    near = np.diff(sorted_N) < CLOSE_BITS
    unsure = np.append(near, False) | np.append(False, near)
    if len(sorted_N) > cells:
        possible = sorted_N >= sorted_N[cells // 2 - cells] - CLOSE_BITS
        if cells > 1:
            possible |= sorted_N <= sorted_N[cells // 2 - 1] + CLOSE_BITS
        unsure &= possible
    return unsure


def _selected(count: int, cells: int) -> NDArray[np.int64]:
    """Return which places of a ranking of ``count`` patches are kept."""
    if count <= cells:
        return np.arange(count)
    return np.concatenate([np.arange(cells // 2), np.arange(count - (cells - cells // 2), count)])


def select(image_HWC: NDArray[np.uint8], params: PatchParams) -> NDArray[np.uint8]:
    """Return the selected patches of an (H, W, 3) uint8 image in rank order, laid out as a mosaic: (M, M, 3) uint8.

    M = ``params.mosaic_px``. Raises `ValueError` if a side of the image is shorter than a patch.
    """
    patches = cut(image_HWC, params.patch_px)
    chosen = rank(patches, params.cells)
    selected = patches[chosen]
    missing = params.cells - len(selected)
    if missing and params.fill == "repeat":
        selected = selected[np.arange(params.cells) % len(selected)]
    elif missing:
        selected = _official_fill(patches, chosen, params)
    return assemble(selected, params)


def assemble(patches_CPPC: NDArray[np.uint8], params: PatchParams) -> NDArray[np.uint8]:
    """Lay patches (C, p, p, 3) out as a mosaic (M, M, 3), row by row; `cut` is its inverse."""
    grid, side = params.grid, params.patch_px
    cells = patches_CPPC.reshape(grid, grid, side, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(params.mosaic_px, params.mosaic_px, 3))


def permute_patches(mosaic_BCHW: torch.Tensor, order_BN: torch.Tensor, grid: int) -> torch.Tensor:
    """Lay the patches of every mosaic out anew, on its device: cell i shows what was patch ``order_BN[:, i]``.

    ``mosaic_BCHW`` (B, C, M, M) of any dtype, ``order_BN`` (B, grid * grid) integer; returns the shape and dtype of the former.
    """
    batch, channels, height, _ = mosaic_BCHW.shape
    side = height // grid
    cells = mosaic_BCHW.reshape(batch, channels, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(batch, grid * grid, channels, side, side)
    chosen = cells[torch.arange(batch, device=mosaic_BCHW.device)[:, None], order_BN.long()]
    return chosen.reshape(batch, grid, grid, channels, side, side).permute(0, 3, 1, 4, 2, 5).reshape(mosaic_BCHW.shape)


def _mirror_weight(patch_px: int) -> torch.Tensor:
    """How often each column of a half spectrum stands in the whole one: once at 0 and at p / 2, twice between."""
    weight = torch.full((patch_px // 2 + 1,), 2.0)
    weight[0] = 1
    if patch_px % 2 == 0:
        weight[-1] = 1
    return weight


def _official_fill(patches: NDArray[np.uint8], ranked: NDArray[np.int64], params: PatchParams) -> NDArray[np.uint8]:
    """The official code on few patches: the lowest 24 and the highest 25 may be the same ones twice; the rest stays black."""
    low, high = ranked[: params.cells // 2], ranked[-(params.cells - params.cells // 2) :]
    shown = patches[np.concatenate([low, high])]
    black = np.zeros((params.cells - len(shown), *patches.shape[1:]), patches.dtype)
    return np.concatenate([shown, black])
