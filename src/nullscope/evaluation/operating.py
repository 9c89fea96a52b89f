"""A threshold that is set before the test: what it promises on some reals, and what it does on others, source by source.

Every rate is a fraction in [0, 1]. N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nullscope.core.contracts import FAKE
from nullscope.decision import TooFewError, promise
from nullscope.evaluation.intervals import wilson
from nullscope.evaluation.metrics import MAX_FPR, Bools, Floats, auroc, pooled


def frozen_thresholds(
    test: pa.Table, val: pa.Table, degraded: Mapping[str, pa.Table] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """Return what thresholds set on the reals of ``val`` do on ``test``, under the names of `MAX_FPR`.

    Both have the columns `label`, `subset`, `logit` and, optionally, `source_of_real` (by default the subset) and `group`. A rate
    that ``val`` has too few reals for is left out. An entry has the rate that is ``promised``, the number of ``reals`` that it
    rests on, the ``threshold``, a logit above which an image is called fake, ``expected_low`` and ``_high``, between which the
    rate on other reals lies (`decision.promise`), and the shares called fake: ``alarms`` of the reals by source, ``found`` of
    the fakes by subset. A share is ``rate`` with the ends of its 95 % interval. ``degraded``, the same test images by their
    degradation, are held against the same threshold: ``degraded`` has the share called fake of all reals and of all fakes.
    """
    real_N = val["logit"].to_numpy()[val["label"].to_numpy() != FAKE]
    parts = {"alarms": _kinds(test, _source_column(test), fake=False), "found": _kinds(test, "subset", fake=True)}
    entries = {}
    for key, promised in MAX_FPR.items():
        try:
            own = promise(real_N, promised)
        except TooFewError:
            continue
        called = {
            part: {name: _share(logit_N > own.threshold, group_N) for name, (logit_N, group_N) in kinds.items()}
            for part, kinds in parts.items()
        }
        called |= {"degraded": {name: _both(rows, own.threshold) for name, rows in degraded.items()}} if degraded else {}
        expected = {"expected_low": own.low, "expected_high": own.high}
        entries[key] = {"promised": promised, "reals": own.images, "threshold": own.threshold, **expected, **called}
    return entries


def _both(rows: pa.Table, threshold: float) -> dict[str, dict[str, float]]:
    """Return the shares called fake, of all reals and of all fakes."""
    is_fake_N, called_N = rows["label"].to_numpy() == FAKE, rows["logit"].to_numpy().astype(np.float64) > threshold
    group_N = rows["group"].to_numpy() if "group" in rows.column_names else None
    kinds = {"alarms": ~is_fake_N, "found": is_fake_N}
    return {
        kind: _share(called_N[own_N], None if group_N is None else group_N[own_N]) for kind, own_N in kinds.items() if own_N.any()
    }


def source_grid(test: pa.Table) -> dict[str, Any] | None:
    """Return the AUROC of every subset's fakes against the reals of every source; None with fewer than two sources or no fakes.

    ``auroc`` is subset -> source -> AUROC, ``worst`` the subset and the source of the lowest. A detector that knows one camera's
    pictures from another's shows here, and hides where all reals are one pool.
    """
    reals, fakes = (_logits(test, column, fake=fake) for column, fake in ((_source_column(test), False), ("subset", True)))
    if len(reals) < 2 or not fakes:
        return None
    grid = {subset: {source: auroc(*pooled(own, fake_N)) for source, own in reals.items()} for subset, fake_N in fakes.items()}
    cells = [(value, subset, source) for subset, row in grid.items() for source, value in row.items()]
    return {"auroc": grid, "worst": list(min(cells)[1:])}


def _kinds(rows: pa.Table, column: str, *, fake: bool) -> dict[str, tuple[Floats, NDArray[Any] | None]]:
    """Return the logits of one kind of images by the words of a column, and their groups where there are any."""
    groups = _values(rows, column, "group", fake=fake) if "group" in rows.column_names else {}
    return {name: (logit_N, groups.get(name)) for name, logit_N in _logits(rows, column, fake=fake).items()}


def _share(called_N: Bools, group_N: NDArray[Any] | None) -> dict[str, float]:
    """Return a share with Wilson's interval, for as many images as say the same alone as these do in their groups."""
    rate, count = float(called_N.mean()), float(len(called_N))
    if group_N is not None:
        _, place_N = np.unique(group_N, return_inverse=True)
        squares = float((np.bincount(place_N, called_N - rate) ** 2).sum())  # of what whole groups lie off the rate
        count = min(count, count**2 * rate * (1 - rate) / squares) if squares else float(place_N.max() + 1)
    low, high = wilson(rate, count)
    return {"rate": rate, "rate_low": low, "rate_high": high}


def _source_column(rows: pa.Table) -> str:
    return "source_of_real" if "source_of_real" in rows.column_names else "subset"


def _logits(rows: pa.Table, column: str, *, fake: bool) -> Mapping[str, Floats]:
    return {name: own.astype(np.float64) for name, own in _values(rows, column, "logit", fake=fake).items()}


def _values(rows: pa.Table, column: str, wanted: str, *, fake: bool) -> dict[str, NDArray[Any]]:
    """Return the column ``wanted`` of one kind of images by the words of ``column``, in the order of the words."""
    of_kind = rows.filter(pa.array((rows["label"].to_numpy() == FAKE) == fake)).select([column, wanted])
    word_N, value_N = of_kind[column].to_numpy(), of_kind[wanted].to_numpy()
    return {str(word): value_N[word_N == word] for word in np.unique(word_N)}
