"""The scores of one detector reduced to curves and histograms: all seeds, and every test image once, without degradation.

N images, S seeds, G points of the ROC's grid, B bins of the histogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from nullscope.evaluation.metrics import Reliability, auroc, reliability, tpr_at_fpr
from nullscope.evaluation.scores import Scores

FPR_G = np.linspace(0, 1, 401)
BINS = 40
TAIL = 0.2  # percent of the logits on each side that are counted in the outermost bins


@dataclass(frozen=True)
class Histogram:
    """Shares of the images of a kind per bin, each summing to 1 (or all 0 where there are no such images)."""

    edges: NDArray[np.float64]  # (B + 1,) logits
    shares: dict[str, NDArray[np.float64]]  # `real`, `seen`, `unseen` -> (B,)


@dataclass(frozen=True)
class Curves:
    """The curves of one detector. Every rate is a fraction in [0, 1]."""

    tpr_SG: NDArray[np.float64]  # at the false positive rates `FPR_G`
    auroc_S: NDArray[np.float64]  # pooled over all test images
    tpr_1_S: NDArray[np.float64] | None  # fakes found at 1 % false positives; None with too few reals
    tpr_5_S: NDArray[np.float64] | None
    reliability: Reliability  # all seeds together
    histogram: Histogram  # all seeds together


def curves(seeds: list[Scores]) -> Curves:
    """Return the curves of one detector. Raises `ValueError` if its scores lack reals or fakes."""
    for scores in seeds:
        if scores.is_fake_N.all() or not scores.is_fake_N.any():
            raise ValueError("scores: expected real and fake test images, found one kind only; a ROC curve needs both")
    pooled = Scores(*(np.concatenate([getattr(s, key) for s in seeds]) for key in ("is_fake_N", "is_seen_N", "logit_N")))
    return Curves(
        tpr_SG=np.stack([_tpr_on_grid(s) for s in seeds]),
        auroc_S=np.array([auroc(s.is_fake_N, s.logit_N) for s in seeds]),
        tpr_1_S=_found(seeds, 0.01),
        tpr_5_S=_found(seeds, 0.05),
        reliability=reliability(pooled.is_fake_N, pooled.logit_N),
        histogram=_histogram(pooled),
    )


def _found(seeds: list[Scores], max_fpr: float) -> NDArray[np.float64] | None:
    found = [tpr_at_fpr(own.is_fake_N, own.logit_N, max_fpr) for own in seeds]
    return None if None in found else np.array(found, np.float64)


def _tpr_on_grid(scores: Scores) -> NDArray[np.float64]:
    """Return the largest true positive rate that any threshold reaches at each of `FPR_G`, without interpolation."""
    fpr, tpr, _ = roc_curve(scores.is_fake_N, scores.logit_N)
    return tpr[np.searchsorted(fpr, FPR_G, side="right") - 1]


def _histogram(scores: Scores) -> Histogram:
    low, high = np.percentile(scores.logit_N, [TAIL, 100 - TAIL]).astype(np.float64)
    low, high = min(low, -1.0), max(high, 1.0)  # the threshold is always in sight, and equal logits still make a bin
    width = (high - low) / BINS
    edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width  # one edge at 0: no bin straddles the threshold
    clipped = np.clip(scores.logit_N, edges[0], edges[-1])
    kinds = {
        "real": ~scores.is_fake_N,
        "seen": scores.is_fake_N & scores.is_seen_N,
        "unseen": scores.is_fake_N & ~scores.is_seen_N,
    }
    return Histogram(edges, {kind: np.histogram(clipped[own], edges)[0] / max(1, own.sum()) for kind, own in kinds.items()})
