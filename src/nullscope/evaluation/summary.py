"""The metrics of all runs (`metrics/summary.json`), per detector and over its seeds.

A *summary* is a dictionary from the name of a run (`core.runs`) to what `protocol.evaluate` returned for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nullscope.core.runs import detector_of
from nullscope.evaluation.metrics import rounded
from nullscope.evaluation.seeds import Spread, estimate, over_seeds, over_seeds_and_images

Metrics = Mapping[str, Any]  # of one run
BEST_BY = "mean_balanced"  # the number by which a detector is called the best
# What people compare first; where no generator is unseen (or no reals are enough for a false-positive rate), the next of a line.
COMPARED = (("r_acc",), ("tpr_5_unseen", "tpr_5", "f_acc_unseen", "f_acc"), ("auroc_unseen", "auroc"))


def by_detector(summary: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the entries of ``summary`` under the names of the detectors: a list over seeds, in their order."""
    grouped: dict[str, list[Any]] = {}
    for run, own in summary.items():
        grouped.setdefault(detector_of(run), []).append(own)
    return grouped


def spread(runs: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    """Return the number ``key`` of every run, over seeds; None if no run has it.

    Where every run has an interval over images, that is part of the spread (`over_seeds_and_images`), otherwise not
    (`over_seeds`).
    """
    own = [run for run in runs if key in run]
    if all(f"{key}_low" in run for run in own) and own:
        return over_seeds_and_images([Spread(run[key], run[f"{key}_low"], run[f"{key}_high"], 1, "interval") for run in own])
    return over_seeds([run[key] for run in own]) if own else None


def forecast(runs: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    """Return the number ``key`` of every run over seeds, with the interval over generators; None where no run has one."""
    named = f"{key}_generators"
    return spread([run | {named: run[key]} for run in runs if f"{named}_low" in run], named)


def difference(runs: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    """Return the number ``key`` less that of ``first`` at the same seed, over seeds (`estimate`); None if no seed has both.

    A single run, such as released weights, is compared with every seed of the other detector.
    """
    runs, first = (own * (len(other) if len(own) == 1 else 1) for own, other in ((list(runs), first), (list(first), runs)))
    pairs = [(run[key], other[key]) for run, other in zip(runs, first, strict=True) if key in run and key in other]
    return estimate([own - other for own, other in pairs]) if pairs else None


def compared(summary: Mapping[str, Metrics]) -> dict[str, dict[str, float]]:
    """Return the numbers by which people compare experiments, per detector: means over its seeds (`COMPARED`)."""
    found: dict[str, dict[str, float]] = {}
    for name, runs in by_detector(summary).items():
        keys = [next((key for key in keys if any(key in run for run in runs)), None) for keys in COMPARED]
        found[name] = {key: rounded(spread(runs, key).mean) for key in keys if key}
    return found


def subsets_of(summary: Mapping[str, Metrics]) -> dict[str, bool]:
    """Return the subsets with fakes, and whether their generator was in the training split: these first, then by name."""
    found = {name: row["seen"] for metrics in summary.values() for name, row in metrics["subsets"].items() if row["n_fake"]}
    return dict(sorted(found.items(), key=lambda item: (not item[1], item[0])))
