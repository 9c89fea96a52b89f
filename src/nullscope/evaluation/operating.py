"""A threshold that is set before the test: what it promises on some reals, and what it does on others, source by source.

Every rate is a fraction in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nullscope.core.contracts import FAKE
from nullscope.evaluation.intervals import wilson
from nullscope.evaluation.metrics import MAX_FPR, Floats, alarms_allowed, auroc, pooled
from nullscope.evaluation.seeds import Spread


@dataclass(frozen=True)
class OperatingPoint:
    """One detector at the threshold that promises a false-positive rate."""

    promised: float
    reals: int  # of the validation split, on which the threshold was set
    threshold: float  # logit; above it, strictly, an image is called fake
    alarms: dict[str, Spread]  # source of reals -> share of its test images called fake, with Wilson's interval
    found: dict[str, Spread]  # subset -> share of its fakes called fake


@dataclass(frozen=True)
class SourceGrid:
    """AUROC of every subset's fakes against the reals of every source."""

    auroc: dict[str, dict[str, float]]  # subset -> source -> AUROC
    worst: tuple[str, str]  # subset and source of the lowest


def operating_points(test: pa.Table, val: pa.Table) -> list[OperatingPoint]:
    """Return what thresholds set on the reals of ``val`` do on ``test``, one for each rate of `MAX_FPR` that has reals enough.

    Both have the columns `label`, `subset`, `logit` and, optionally, `source_of_real`; without it a source is a subset.
    """
    falling_N = np.sort(np.concatenate([np.empty(0), *_reals(val).values()]))[::-1]
    reals, fakes, points = _reals(test), _fakes(test), []
    for promised in MAX_FPR.values():
        alarms = alarms_allowed(len(falling_N), promised)
        if alarms is None:
            continue
        threshold = float(falling_N[alarms])
        called = _called(reals, threshold), _called(fakes, threshold)
        points.append(OperatingPoint(promised, len(falling_N), threshold, *called))
    return points


def source_grid(test: pa.Table) -> SourceGrid | None:
    """Return the grid of generators and sources of reals; None with fewer than two sources or without fakes.

    A detector that knows one camera's pictures from another's shows here, and hides where all reals are one pool.
    """
    reals, fakes = _reals(test), _fakes(test)
    if len(reals) < 2 or not fakes:
        return None
    grid = {subset: {source: auroc(*pooled(own, fake_N)) for source, own in reals.items()} for subset, fake_N in fakes.items()}
    worst = min(((subset, source) for subset in grid for source in reals), key=lambda cell: grid[cell[0]][cell[1]])
    return SourceGrid(grid, worst)


def _called(kinds: Mapping[str, Floats], threshold: float) -> dict[str, Spread]:
    rates = {name: float(np.mean(logit_N > threshold)) for name, logit_N in kinds.items()}
    return {name: Spread(rate, *wilson(rate, len(kinds[name])), 1, "interval") for name, rate in rates.items()}


def _reals(rows: pa.Table) -> dict[str, NDArray[np.float64]]:
    return _logits(rows, "source_of_real" if "source_of_real" in rows.column_names else "subset", fake=False)


def _fakes(rows: pa.Table) -> dict[str, NDArray[np.float64]]:
    return _logits(rows, "subset", fake=True)


def _logits(rows: pa.Table, column: str, *, fake: bool) -> dict[str, NDArray[np.float64]]:
    """Return the logits of one kind by the words of a column, in the order of the words."""
    wanted_N = (rows["label"].to_numpy() == FAKE) == fake
    word_N, logit_N = rows[column].to_numpy()[wanted_N], rows["logit"].to_numpy()[wanted_N].astype(np.float64)
    return {str(word): logit_N[word_N == word] for word in np.unique(word_N)}
