"""What `dvc plots show` and `dvc plots diff` draw: losses, validation, ROC and generators as CSV, a row per point.

Every file has the column ``detector``; the templates in .dvc/plots draw a panel for each, and a colour for each revision.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nullscope.evaluation.curves import FPR_G, Curves
from nullscope.evaluation.history import History
from nullscope.evaluation.summary import Metrics, by_detector, spread, subsets_of

POINTS = 100  # of a curve
Rows = Iterable[Sequence[str | int | float]]


def plot_files(
    summary: Mapping[str, Metrics], drawn: Mapping[str, Curves], histories: Mapping[str, Sequence[History]]
) -> dict[str, str]:
    """Return the files by name, each as text; rates in percent."""
    return {
        "losses.csv": _csv(("detector", "seed", "step", "loss"), _points(histories, "loss")),
        "validation.csv": _csv(("detector", "seed", "step", "val_ap"), _points(histories, "val_ap")),
        "roc.csv": _csv(("detector", "seed", "reals called fake", "fakes called fake"), _roc(drawn)),
        "generators.csv": _csv(("detector", "generator", "fakes called fake", "AUROC"), _generators(summary)),
    }


def _points(histories: Mapping[str, Sequence[History]], column: str) -> Rows:
    """Yield at most `POINTS` points of every curve, each the mean of its neighbours."""
    for name, own in histories.items():
        for seed, history in enumerate(own):
            steps, values = history.points(column)
            parts = min(POINTS, len(steps))
            for at, value in zip(np.array_split(steps, parts), np.array_split(values, parts), strict=True) if parts else ():
                yield name, seed, int(at[-1]), round(float(value.mean()), 6)


def _roc(drawn: Mapping[str, Curves]) -> Rows:
    for name, own in drawn.items():
        for seed, tpr_G in enumerate(own.tpr_SG):
            for fpr, tpr in zip(FPR_G[:: len(FPR_G) // POINTS], tpr_G[:: len(FPR_G) // POINTS], strict=True):
                yield name, seed, round(100 * float(fpr), 3), round(100 * float(tpr), 3)


def _generators(summary: Mapping[str, Metrics]) -> Rows:
    for name, runs in by_detector(summary).items():
        for subset in subsets_of(summary):
            rows = [run["subsets"].get(subset, {}) for run in runs]
            found = [spread(rows, key) for key in ("f_acc", "auroc")]
            yield name, subset, *("" if value is None else round(100 * value.mean, 3) for value in found)


def _csv(names: Sequence[str], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()
