"""Accuracy under degradations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nullscope.core.contracts import CLEAN
from nullscope.evaluation.robustness import degradations_of, mean_under, metrics_under, worst_degradation
from nullscope.evaluation.summary import Metrics, by_detector
from nullscope.report.figures.canvas import GREY, INK, Figure, Look, if_seeds, panels, png
from nullscope.report.tables.robustness import words

DRAWN = {
    "r_acc": ("reals called real", "o", "-"),
    "f_acc": ("fakes called fake (in the detector's colour)", "s", "-"),
    "auroc": ("AUROC", ".", ":"),
}


def robustness_figure(summary: Mapping[str, Metrics], look: dict[str, Look]) -> Figure | None:
    """Return one panel per detector with its accuracies under every degradation; None if no degraded image was scored.

    K states of the images: as they are, and every degradation. S seeds.
    """
    names = degradations_of(summary)
    if not names:
        return None
    runs, states = by_detector(summary), [CLEAN, *names]
    kinds: dict[str, list[int]] = {}  # kind of degradation -> its places; lines join places of one kind
    for place, name in enumerate(states):
        kinds.setdefault(name.partition("_")[0], []).append(place)

    def draw(axes: Axes, detector: str) -> None:
        for key, (_, marker, line) in DRAWN.items():
            percent_KS = 100 * np.array([[run[key] for run in metrics_under(runs[detector], name)] for name in states])
            colour = INK if key == "r_acc" else look[detector].colour if key == "f_acc" else GREY
            for places in kinds.values():
                axes.plot(places, percent_KS.mean(1)[places], marker, color=colour, linestyle=line, markersize=3.5)
            if percent_KS.shape[1] > 1 and key != "auroc":
                axes.vlines(range(len(states)), percent_KS.min(1), percent_KS.max(1), color=colour, linewidth=0.8)
        axes.set(title=detector, ylim=(-3, 103), yticks=range(0, 101, 25))
        axes.set_xlim(-0.4, len(states) - 0.6)
        axes.set_xticks(range(len(states)), [words(name) for name in states], rotation=55, ha="right", fontsize=7)

    canvas = panels(list(runs), draw, height=2.5, x="", y="percent")
    colours = {"r_acc": INK, "f_acc": look[next(iter(look))].colour, "auroc": GREY}
    keys = [Line2D([], [], color=colours[key], marker=m, linestyle=line, label=label) for key, (label, m, line) in DRAWN.items()]
    canvas.legend(handles=keys, loc="outside upper left", ncols=len(keys))
    caption = (
        "Means over the test subsets; the threshold is that of clean images. What differs in strength alone is joined."
        + if_seeds(runs, " Upright lines: from the lowest to the highest seed.")
    )
    return Figure("robustness", "Robustness", caption, describe(summary, names), png(canvas))


def describe(summary: Mapping[str, Metrics], names: list[str]) -> str:
    """Return what the figure shows, in words: every detector's worst degradation, and what reals and fakes do under it."""
    each = []
    for detector, runs in by_detector(summary).items():
        worst = worst_degradation(runs, names)
        change = {
            key: f"{100 * mean_under(runs, CLEAN, key):.1f} to {100 * mean_under(runs, worst, key):.1f} %"
            for key in ("mean_balanced", "r_acc", "f_acc")
        }
        each.append(
            f"{detector} is worst under {words(worst)}: balanced accuracy {change['mean_balanced']}, reals {change['r_acc']}, "
            f"fakes {change['f_acc']}"
        )
    return f"Accuracy under degradations, one panel per detector. {'; '.join(each)}."
