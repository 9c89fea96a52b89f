"""How far the colour of the object moves the score: the shortcut of the embedded world, measured on its test pictures.

In a share of the training pictures the object's colour tells the label: reals have one of three colours, fakes one of three
others (`nullscope.world.colours`). In testing it never does. A detector that took the shortcut still scores by it. N pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nullscope.evaluation.intervals import Z_95
from nullscope.evaluation.metrics import auroc, balanced_accuracy

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Coloured:
    """The scores of one run for the test pictures whose caption names a colour."""

    is_fake_N: Bools
    is_fake_colour_N: Bools  # one that the fakes have in training
    subset_N: NDArray[np.str_]  # in the embedded world a subset is the reals or one generator
    logit_N: NDArray[np.floating]


@dataclass(frozen=True)
class Shortcut:
    """The effect of the colour on the scores of every run."""

    share: float  # of the training pictures whose colour was drawn from the half of their label
    runs: dict[str, dict[str, float]]  # <detector>-<seed> -> `effect`
    pictures: int  # test pictures whose caption names one colour
    left_out: int  # those whose caption names none or several
    chance: float  # half the 95 % interval of the colour AUROC of a score that knows no colour, for these pictures


def effect(scores: Coloured) -> dict[str, float]:
    """Return the numbers of one run; one that is not defined (no picture of a kind) is left out.

    ``colour_auroc``: among pictures of one label and generator, the chance that one with a colour of the fakes scores above one
    with a colour of the reals, ties counting half; the mean over those groups, weighted by their pairs. ``auroc_agree``,
    ``balanced_agree``: of reals against fakes where the colour is the label's own in training; ``_conflict``: where it is the
    other label's. ``auroc_drop``, ``balanced_drop``: what the second lacks.
    """
    values: dict[str, float] = {}
    groups = [(int(own.sum() * other.sum()), own, other) for own, other in _groups(scores)]
    if pairs := sum(count for count, _, _ in groups):
        values["colour_auroc"] = sum(count * _chance_above(scores, own, other) for count, own, other in groups) / pairs
    agree_N = scores.is_fake_N == scores.is_fake_colour_N
    for word, part_N in (("agree", agree_N), ("conflict", ~agree_N)):
        is_fake, logit = scores.is_fake_N[part_N], scores.logit_N[part_N]
        if is_fake.any() and not is_fake.all():
            values |= {f"auroc_{word}": auroc(is_fake, logit), f"balanced_{word}": balanced_accuracy(is_fake, logit)}
    for name in ("auroc", "balanced"):
        if f"{name}_agree" in values and f"{name}_conflict" in values:
            values[f"{name}_drop"] = values[f"{name}_conflict"] - values[f"{name}_agree"]
    return values


def chance_half_width(scores: Coloured) -> float:
    """Return half the 95 % interval of the ``colour_auroc`` of a score that knows no colour: how far chance takes it from 1/2.

    The variance of the Mann-Whitney statistic of m and n values is m n (m + n + 1) / 12; the groups are independent.
    """
    counts = [(int(own.sum()), int(other.sum())) for own, other in _groups(scores)]
    pairs = sum(m * n for m, n in counts)
    return Z_95 * float(np.sqrt(sum(m * n * (m + n + 1) / 12 for m, n in counts))) / pairs if pairs else 0.5


def _groups(scores: Coloured) -> Iterator[tuple[Bools, Bools]]:
    """Yield the pictures with fakes' and with reals' colours of every label and generator that has both."""
    for subset in np.unique(scores.subset_N):
        for label in (False, True):
            group_N = (scores.subset_N == subset) & (scores.is_fake_N == label)
            fakes_N, reals_N = group_N & scores.is_fake_colour_N, group_N & ~scores.is_fake_colour_N
            if fakes_N.any() and reals_N.any():
                yield fakes_N, reals_N


def _chance_above(scores: Coloured, above_N: Bools, below_N: Bools) -> float:
    either_N = above_N | below_N
    return auroc(above_N[either_N], scores.logit_N[either_N])
