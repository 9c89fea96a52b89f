"""Tables of resamples of made-up runs: around their numbers, the images moving all runs alike and each a little by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from nullscope.evaluation.resampling import RESAMPLES, resample_schema
from nullscope.evaluation.summary import by_detector


def resampled(numbers: Mapping[str, float], seed: int, noise: float = 0.005) -> pa.Table:
    """Return the resamples of one run."""
    shared, own = np.random.default_rng(0).normal(0, 0.02, RESAMPLES), np.random.default_rng(seed)
    columns = [np.r_[value, value + shared + own.normal(0, noise, RESAMPLES)] for value in numbers.values()]
    schema = resample_schema(numbers).with_metadata({"strata": "of one test set"})
    return pa.table([np.arange(RESAMPLES + 1, dtype=np.int32), *columns], schema=schema)


def tables_of(summary: Mapping[str, Mapping[str, Any]], noise: float = 0.005) -> dict[str, list[pa.Table]]:
    """Return the tables of every detector, of the numbers that its runs have."""
    numbers = {run: {key: own for key, own in found.items() if isinstance(own, float)} for run, found in summary.items()}
    tables = {run: resampled(own, at, noise) for at, (run, own) in enumerate(numbers.items())}
    return by_detector(tables)
