"""Curves and histograms of scores."""

from __future__ import annotations

import numpy as np
import pytest

from nullscope.evaluation.curves import FPR_G, curves
from nullscope.evaluation.scores import Scores


def test_curves_take_the_best_threshold_that_keeps_to_the_rate():
    scores = Scores(np.array([False, True, False, True]), np.zeros(4, bool), np.array([4, 3, 2, 1], np.float32))
    tpr = curves([scores]).tpr_SG[0]
    assert tpr[FPR_G < 0.5].max() == 0
    assert (tpr[(FPR_G >= 0.5) & (FPR_G < 1)] == 0.5).all()
    assert tpr[-1] == 1


def test_histogram_has_an_edge_at_the_threshold_and_counts_every_image():
    rng = np.random.default_rng(0)
    histogram = curves(
        [Scores(rng.random(500) < 0.5, rng.random(500) < 0.5, rng.normal(3, 20, 500).astype(np.float32))]
    ).histogram
    assert (histogram.edges == 0).sum() == 1
    assert [share.sum() for share in histogram.shares.values()] == pytest.approx([1, 1, 1])


def test_curves_need_both_kinds():
    with pytest.raises(ValueError, match="found one kind only"):
        curves([Scores(np.ones(3, bool), np.ones(3, bool), np.zeros(3, np.float32))])
