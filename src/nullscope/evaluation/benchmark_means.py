"""A detector's mean over the subsets of a published benchmark, with its 95 % interval, whatever other subsets the run has.

All numbers are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nullscope.evaluation.seeds import Spread
from nullscope.evaluation.summary import Metrics


def of_subset(rows: Mapping[str, Any], subset: str, metric: str) -> Spread | None:
    """Return a metric of one subset, with its interval over images; None where it was not computed.

    ``rows``: the entry ``subsets`` of what `protocol.evaluate` returns.
    """
    return _combined(rows, [subset], {metric: 1.0})


def over_subsets(rows: Mapping[str, Any], subsets: Sequence[str], metric: str) -> Spread | None:
    """Return a mean over ``subsets``; None unless each of them has what it needs.

    ``metric`` is ``mean_real_fakes``, ``mean_fakes`` or ``mean_balanced`` as `protocol.evaluate` defines them, or the name of a
    metric of a subset, whose plain mean is taken.
    """
    count = len(subsets)
    shares = {
        "mean_real_fakes": {"r_acc": 1 / (count * (count + 1)), "f_acc": 1 / (count + 1)},
        "mean_fakes": {"f_acc": 1 / count},
        "mean_balanced": {"r_acc": 0.5 / count, "f_acc": 0.5 / count},
    }
    return _combined(rows, subsets, shares.get(metric, {metric: 1 / count}))


def over_whole_run(run: Metrics, subsets: Sequence[str], metric: str) -> Spread | None:
    """Return `over_subsets`, with the bootstrap's interval where ``subsets`` are all subsets of the run.

    That interval is the better one: it takes into account that several subsets may use the same reals.
    """
    found = over_subsets(run["subsets"], subsets, metric)
    everything = set(subsets) == {subset for subset, row in run["subsets"].items() if row["n_fake"]}
    return _ordered(run[metric], run[f"{metric}_low"], run[f"{metric}_high"]) if found and everything else found


def _combined(rows: Mapping[str, Any], subsets: Sequence[str], shares: Mapping[str, float]) -> Spread | None:
    """Return the sum over subsets and keys of share times number, None if one is missing.

    Its interval adds the distances to the ends in quadrature (Zou & Donner 2008), as of numbers of different images: GenImage
    and AIGIBench, the benchmarks with parts and degradations, have reals of their own in every subset.
    """
    terms = [(share, rows.get(name, {}), key) for name in subsets for key, share in shares.items()]
    if not all(key in row for _, row, key in terms):
        return None
    mean = sum(share * row[key] for share, row, key in terms)
    below = [share * (row[key] - row.get(f"{key}_low", row[key])) for share, row, key in terms]
    above = [share * (row.get(f"{key}_high", row[key]) - row[key]) for share, row, key in terms]
    return _ordered(mean, mean - float(np.hypot.reduce(below)), mean + float(np.hypot.reduce(above)))


def _ordered(mean: float, low: float, high: float) -> Spread:
    """Return an interval within [0, 1] that holds its mean: ends that were rounded may lie beyond it."""
    return Spread(mean, max(0.0, min(low, mean)), min(1.0, max(high, mean)), 1, "interval")
