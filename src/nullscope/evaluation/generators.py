"""A mean over generators as a forecast for other generators: the interval that takes the generators for a sample.

The interval of a mean over images says what other images of the same generators would give. Generators differ far more than
images do, so it says little about the next generator. Here the generators are drawn too.

G generators (subsets with fakes), R resamples.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nullscope.evaluation.intervals import on_logit_scale, student

ENOUGH = 3  # generators for an interval: the population is seen through their spread alone
SEED = "bootstrap/generators"  # the draws' name


def forecast(value: float, resamples: Mapping[str, NDArray[np.float64]]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over generators, for generators like these; None of fewer than `ENOUGH`.

    ``value``: the mean on the test set; ``resamples``: per generator the number in every resample of its images, (R,), all
    drawn together. A two-level bootstrap: in every resample as many generators are drawn, with replacement, as there are, each
    with its images resampled. The error is that of the resampled means, times the root of G / (G - 1), by which the spread of
    a drawn sample falls short of the population's. The interval is Student's with G - 1 degrees of freedom, on the scale of
    the logit.
    """
    count = len(resamples)
    if count < ENOUGH:
        return None
    values_RG = np.stack([resamples[name] for name in sorted(resamples)], axis=1)
    rng = np.random.default_rng(zlib.crc32(SEED.encode()))
    share_RG = rng.multinomial(count, np.full(count, 1 / count), len(values_RG)) / count
    error = float((share_RG * values_RG).sum(axis=1).std(ddof=1)) * np.sqrt(count / (count - 1))
    return on_logit_scale(value, error, student(count - 1))
