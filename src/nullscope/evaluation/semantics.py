"""NS-Net's figure 1: do frozen features tell real from fake by what the pictures show, and does the null space prevent that?

Two sets of test images. Matched: every fake has the real with the nearest caption beside it, so their meaning cannot tell them
apart. Mismatched: reals and fakes from opposite ends of the direction in which the captions differ most.

R reals, F fakes, N of both, M images of each kind in a set, D width of the embedding, K removed directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from nullscope.core import lanes
from nullscope.evaluation.seeds import Spread
from nullscope.evaluation.separation import Bools, Features, Floats, separability, tsne
from nullscope.ops.projection import remove

SETS = ("matched", "mismatched")
KINDS = ("captions", "before", "after")  # the features: of the captions; of the pictures, before and after the projection
DRAWN_KINDS = KINDS[1:]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Basis:
    """The directions that a detector's null space removes."""

    detector: str
    basis_DK: NDArray[np.float32]  # orthonormal columns


@dataclass(frozen=True)
class Semantics:
    """Both sets, in all three features."""

    detector: str  # whose features these are: the frozen probe
    input: str  # its parameter `input`
    basis: str  # the detector whose null space this is
    removed: int  # directions
    place: dict[tuple[str, str], NDArray[np.floating]]  # (kind, set) -> (2M, 2), `tsne`: first the reals, then the fakes
    is_fake: Bools  # (2M,), the same for all
    auroc: dict[tuple[str, str], Spread]  # (kind, set) -> `separability`

    @property
    def count(self) -> int:
        """M, the images of each kind in a set."""
        return len(self.is_fake) // 2


def compare(probe: str, input_kind: str, frozen: Features, text_ND: Floats, basis: Basis) -> Semantics | None:
    """Return both sets with their AUROCs, from the features ``frozen`` of ``probe``; None with too few images of a kind.

    ``text_ND``: the features of the captions of the same images, row by row. ``input_kind``: the parameter `input` of ``probe``.
    """
    text_ND = unit(text_ND)
    real_R, fake_F = np.flatnonzero(~frozen.is_fake_N), np.flatnonzero(frozen.is_fake_N)
    count = min(len(real_R), len(fake_F)) // 2
    kinds = {"captions": text_ND, "before": frozen.feature_NK, "after": remove(frozen.feature_NK, basis.basis_DK)}
    rows = {"matched": matched(text_ND, real_R, fake_F, count), "mismatched": mismatched(text_ND, real_R, fake_F, count)}
    feature = {(kind, word): kinds[kind][rows[word]] for kind in KINDS for word in SETS}
    is_fake, pair = np.repeat([False, True], count), np.tile(np.arange(count), 2)
    auroc = {key: separability(own, is_fake, pair) for key, own in feature.items()}
    if None in auroc.values():
        return None
    drawn = [(kind, word) for kind, word in feature if kind in DRAWN_KINDS]
    place = dict(zip(drawn, lanes.each(tsne, [feature[key] for key in drawn]), strict=True))
    return Semantics(probe, input_kind, basis.detector, basis.basis_DK.shape[1], place, is_fake, auroc)


def matched(unit_ND: Floats, real_R: Rows, fake_F: Rows, count: int) -> Rows:
    """Return the rows of ``count`` reals, then of the fakes paired with them.

    The pairs, one to one, have the largest cosines in sum; the nearest ``count`` of them are taken, the nearest first.
    """
    cosine_RF = unit_ND[real_R].astype(np.float64) @ unit_ND[fake_F].T.astype(np.float64)
    reals, fakes = linear_sum_assignment(cosine_RF, maximize=True)
    nearest = np.argsort(-cosine_RF[reals, fakes], kind="stable")[:count]
    return np.concatenate([real_R[reals[nearest]], fake_F[fakes[nearest]]])


def mismatched(unit_ND: Floats, real_R: Rows, fake_F: Rows, count: int) -> Rows:
    """Return the rows of the ``count`` reals lowest on the captions' first principal axis, then of the fakes highest on it."""
    centred_ND = unit_ND.astype(np.float64) - unit_ND.mean(axis=0, dtype=np.float64)
    axis_D = np.linalg.eigh(centred_ND.T @ centred_ND)[1][:, -1]
    axis_D = axis_D * np.sign(axis_D[np.abs(axis_D).argmax()])  # LAPACK leaves the sign of an eigenvector open
    place_N = centred_ND @ axis_D
    lowest, highest = np.argsort(place_N[real_R], kind="stable"), np.argsort(-place_N[fake_F], kind="stable")
    return np.concatenate([real_R[lowest[:count]], fake_F[highest[:count]]])


def unit(rows_ND: Floats) -> Floats:
    """Return the rows at unit length; a row of zeros stays one."""
    length_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows_ND / np.where(length_N1 > 0, length_N1, 1)
