"""Patch selection: keep the patches of lowest and of highest spectral entropy, and lay them out as a mosaic.

NS-Net, section "Patch Selection". The definition is that of the authors' official code (HorizonTEL/DGS-Net@1aed871
``data/PatchSelectionTransform.py``): crop bottom and right to whole patches; luma 0.299 R + 0.587 G + 0.114 B on [0, 1]; power
spectrum P = |FFT2|^2 with its DC term; p = P / (sum P + 1e-12); entropy = -sum p log2(p + 1e-12) in bits; the 24 lowest and
the 25 highest fill a mosaic of 7 x 7. We differ in two places. Ties are broken by position (in the official code they are
undefined). An image of fewer patches than the mosaic has cells repeats its ranked patches; the official code repeats some and
leaves the rest black, as ``fill: black`` does here.

A mosaic is the same on every processor: see `rank`, and ``docs/numerics.md`` for the proof.

H, W image size; p patch side; N patches of an image; C = grid * grid cells of the mosaic.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from nullscope.core.config import Params

LUMA = (299, 587, 114)  # thousandths: luma in units of 1 / 255,000 is a whole number below 2**24, exact in float32
EPSILON = 1e-12 * 255_000**2  # of the power, in the same units; of a share it is 1e-12
SHARE_EPSILON = 1e-12
CHUNK_PX = 65_536  # pixels whose spectra are computed at once: they stay in the cache
TIE_BITS = 1e-9  # entropies that lie closer are a tie; float64 is at most 1e-11 bits off


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
    """Return the spectral entropy of patches (N, p, p, 3) uint8 in bits: (N,) of ``dtype``, in which everything is computed.

    The spectrum of a real patch is mirrored. So the real FFT computes p // 2 + 1 of its p columns, and the sums count those
    between the first and the last twice. Sums run along the rows first and then over them: two short sums round less than one
    long one, in whatever order a library adds.
    """
    count, side = patches_NPPC.shape[:2]
    entropy_N, step = np.empty(count, dtype), max(1, CHUNK_PX // side**2)
    luma_weight = np.array(LUMA, dtype)
    weight = _mirror_weight(side).to(torch.from_numpy(luma_weight))
    for start in range(0, count, step):
        # A BLAS product of (N p p, 3) with the weights: a third of the time of torch's own matrix-vector product here.
        luma = np.dot(patches_NPPC[start : start + step].reshape(-1, 3).astype(dtype), luma_weight)
        squares = torch.view_as_real(torch.fft.rfft2(torch.from_numpy(luma).reshape(-1, side, side))).square_()
        share = (squares[..., 0] + squares[..., 1]).flatten(1)  # the power: (n, p * (p // 2 + 1))
        share /= (_sum(share, weight) + EPSILON)[:, None]
        entropy_N[start : start + step] = -_sum(share.mul_(torch.log2(share + SHARE_EPSILON)), weight).numpy()
    return entropy_N


def single_precision_margin(entropy_N: NDArray[np.floating], patch_px: int) -> NDArray[np.float64]:
    """Return how far float32 entropies (N,) may lie from those of exact arithmetic, in bits: (N,) float64.

    An upper bound for every processor and library, for sides that are powers of two; ``docs/numerics.md`` derives it. It grows
    with the entropy, and never faster than the entropy itself: entropies sorted have their lower ends sorted too.
    """
    unit, pixels = 2.0**-24, patch_px**2
    fft = 8 * unit * (np.log2(pixels) + 1)  # the relative error of the spectrum as a vector
    beside = entropy_N.astype(np.float64) + 1e-3  # at least the share of the power beside the largest coefficient
    distance = 5 * fft * np.minimum(1, 2 * np.sqrt(beside))  # between the shares and the exact ones, summed
    terms = patch_px + patch_px // 2 + 1  # of the two sums
    return distance * np.log2(pixels / distance) + (2 * terms + 10) * unit * (entropy_N + 1.5) + 2 * pixels * SHARE_EPSILON


def rank(patches_NPPC: NDArray[np.uint8], cells: int) -> NDArray[np.int64]:
    """Return the positions of the selected patches in ascending order of entropy, ties by position: (min(N, cells),) int64.

    The ``cells // 2`` lowest and the ``cells - cells // 2`` highest; all of them where there are no more than ``cells``.

    The order is that of exact arithmetic. In it, two patches whose entropies differ by less than `TIE_BITS` are a tie, and so
    are the first and the last of a chain of such patches. Float32 decides where its error bound allows no other order; only the
    patches that are left, and may be selected, are computed again in float64. Only a difference within 1e-11 bits of `TIE_BITS`
    could be decided one way on one processor and the other way on another.
    """
    side = patches_NPPC.shape[1]
    if side & (side - 1):  # no power of two: the error bound is not for this FFT
        return np.argsort(_tied(spectral_entropy(patches_NPPC)), kind="stable")[_selected(len(patches_NPPC), cells)]
    entropy_N = spectral_entropy(patches_NPPC, np.float32).astype(np.float64)
    order = np.argsort(entropy_N, kind="stable")
    unsure = order[_unsure(entropy_N[order], cells, side)]
    if len(unsure):
        entropy_N[unsure] = _tied(spectral_entropy(patches_NPPC[unsure]))
        order = np.argsort(entropy_N, kind="stable")
    return order[_selected(len(order), cells)]


def _unsure(sorted_N: NDArray[np.float64], cells: int, patch_px: int) -> NDArray[np.bool_]:
    """Say which places of a float32 ranking may belong to the selection and lie too close to a neighbour to be sure of."""
    margin_N = single_precision_margin(sorted_N, patch_px)
    low_N, high_N = sorted_N - margin_N, sorted_N + margin_N
    near = low_N[1:] - high_N[:-1] < TIE_BITS
    unsure = np.append(near, False) | np.append(False, near)
    if len(sorted_N) > cells:
        chain = len(sorted_N) * TIE_BITS  # the longest that a chain of ties can be
        possible = high_N >= low_N[cells // 2 - cells] - chain
        if cells > 1:
            possible |= low_N <= high_N[cells // 2 - 1] + chain
        unsure &= possible
    return unsure


def _tied(entropy_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return entropies in which those of a chain of ties are equal: to the lowest of the chain."""
    order = np.argsort(entropy_N, kind="stable")
    sorted_N = entropy_N[order]
    starts = np.append(True, np.diff(sorted_N) >= TIE_BITS)
    tied_N = np.empty_like(entropy_N)
    tied_N[order] = sorted_N[starts][np.cumsum(starts) - 1]
    return tied_N


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


def _sum(half_NF: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sum whole spectra of which the half is given, (n, p * (p // 2 + 1)) -> (n,): along the rows, then over them."""
    return torch.mv(half_NF.view(-1, len(weight)), weight).view(len(half_NF), -1).sum(1)


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
