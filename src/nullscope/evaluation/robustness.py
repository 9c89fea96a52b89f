"""The metrics of degraded images, in an order that people expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nullscope.core.contracts import CLEAN
from nullscope.evaluation.summary import Metrics

KINDS = ("jpeg", "webp", "blur", "resize", "crop")  # of degradations whose name ends in a strength: ``jpeg_75``


def degradations_of(summary: Mapping[str, Metrics]) -> list[str]:
    """Return the degradations that all runs were scored under: by kind, and within a kind the weakest first.

    Of sizes and crops the largest comes first, even where it is larger than the image.
    """
    found = [set(run.get("degradations", {})) for run in summary.values()]
    return sorted(set.intersection(*found), key=_strength) if found else []


def metrics_under(runs: Sequence[Metrics], name: str) -> list[Metrics]:
    """Return the metrics of every run under one degradation, or of the images as they are (`contracts.CLEAN`)."""
    return list(runs) if name == CLEAN else [run["degradations"][name] for run in runs]


def worst_degradation(runs: Sequence[Metrics], names: Sequence[str]) -> str:
    """Return the degradation with the lowest balanced accuracy, as a mean over subsets and seeds."""
    return min(names, key=lambda name: mean_under(runs, name, "mean_balanced"))


def mean_under(runs: Sequence[Metrics], name: str, key: str) -> float:
    """Return the mean over seeds of a number under one degradation."""
    return float(np.mean([run[key] for run in metrics_under(runs, name)]))


def _strength(name: str) -> tuple[int, float, str]:
    kind, _, amount = name.partition("_")
    if kind not in KINDS:
        return len(KINDS), 0.0, name
    weakest_first = float(amount) if kind == "blur" else -float(amount)
    return KINDS.index(kind), weakest_first, name
