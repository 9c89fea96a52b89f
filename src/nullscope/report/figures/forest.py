"""Forest plots: per detector a circle for every seed, and their mean with its interval. The comparison, and the shortcut.

S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from nullscope.evaluation.shortcut import Shortcut
from nullscope.evaluation.summary import Metrics, by_detector, spread
from nullscope.report.figures.canvas import FAINT, GREY, INK, SEED, WIDTH, Figure, Look, if_seeds, png
from nullscope.report.sentences import mean_text, percent
from nullscope.report.tables.comparison import COMPARED, said_of

Runs = dict[str, list[dict[str, Any]]]  # detector -> the numbers of every seed


@dataclass(frozen=True)
class Kind:
    """One number of every run, and how its mean is drawn."""

    key: str
    label: str = ""
    marker: str = "o"
    hollow: bool = False


def comparison_figure(summary: Mapping[str, Metrics], look: Mapping[str, Look], said: str) -> Figure | None:
    """Return AUROC and accuracy on unseen generators; None of a single detector, or without unseen generators.

    ``said``: which detectors differ, in words.
    """
    runs = by_detector(summary)
    if len(runs) < 2 or not all(set(COMPARED) <= set(own[0]) for own in runs.values()):
        return None
    canvas, grid = _rows(runs, per_row=0.27)
    for axes, key, x in zip(grid, COMPARED, ("AUROC (%)", "fakes called fake (%)"), strict=True):
        first = 100 * np.mean([run[key] for run in next(iter(runs.values()))])
        axes.axvline(first, color=GREY, linewidth=0.8, linestyle=":")
        _forest(axes, runs, [Kind(key)], look)
        axes.set(title=f"Unseen generators: {x.removesuffix(' (%)')}", xlabel=x)
    caption = (
        f"Dot and line: {said_of(max(map(len, runs.values())))}. Dotted: the mean of {next(iter(runs))}. Intervals that overlap "
        "do not make two detectors alike: they see the same images, and the table has the intervals of the differences."
        + if_seeds(runs, " Circles: the seeds.")
    )
    return Figure("comparison", "Detectors compared", caption, describe_comparison(summary, said), png(canvas))


def shortcut_figure(found: Shortcut, look: Mapping[str, Look]) -> Figure:
    """Return how far the object's colour moves the score, and what is left where it misleads."""
    runs = by_detector(found.runs)
    canvas, (colour, area) = _rows(runs, per_row=0.36)
    colour.axvspan(50 - 100 * found.chance, 50 + 100 * found.chance, color=FAINT, linewidth=0)
    colour.axvline(50, color=GREY, linewidth=0.8)
    _forest(colour, runs, [Kind("colour_auroc")], look)
    colour.set(title="How far the colour moves the score", xlabel="colour AUROC (%); 50: not at all")
    kinds = [Kind("auroc_agree", "the colour agrees with the label"), Kind("auroc_conflict", "it conflicts", "D", hollow=True)]
    _forest(area, runs, kinds, look)
    area.set(title="Real from fake, by colour", xlabel="AUROC (%)")
    canvas.legend(handles=[_key(kind) for kind in kinds], loc="outside lower right", ncols=2)
    several = len(next(iter(runs.values()))) > 1
    caption = (
        "Left: the chance that a test picture with a colour of the fakes scores above one with a colour of the reals, among "
        "pictures of one label and generator. Grey band: where a score that knows no colour would lie 19 times in 20 with so few "
        "pictures. Right: AUROC over the test pictures whose colour is that of their own label in training, and over the others."
        + (" Circles: the seeds; line: the 95 % interval of their mean, from three seeds on." if several else "")
    )
    return Figure("shortcut", "The shortcut", caption, describe_shortcut(found), png(canvas))


def _rows(runs: Runs, *, per_row: float) -> tuple[Canvas, np.ndarray]:
    """Return two panels with one row per detector. ``per_row`` in inches."""
    canvas = Canvas(figsize=(WIDTH, 1.1 + per_row * len(runs)))
    grid = canvas.subplots(1, 2, sharey=True)
    grid[0].set_yticks(range(len(runs)), list(runs))
    grid[0].set_ylim(len(runs) - 0.4, -0.6)
    for axes in grid:
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return canvas, grid


def _forest(axes: Axes, runs: Runs, kinds: list[Kind], look: Mapping[str, Look]) -> None:
    offsets = np.linspace(-0.16, 0.16, len(kinds)) if len(kinds) > 1 else [0.0]
    for row, (name, own) in enumerate(runs.items()):
        for kind, offset in zip(kinds, offsets, strict=True):
            values_S = 100 * np.array([run[kind.key] for run in own if kind.key in run])
            if not len(values_S):
                continue
            mean, colour, y = spread(own, kind.key), look[name].colour, row + offset
            axes.hlines(y, 100 * mean.low, 100 * mean.high, color=colour, linewidth=1.5)
            face = "white" if kind.hollow else colour
            axes.plot([100 * mean.mean], [y], kind.marker, color=colour, markerfacecolor=face, markersize=6.5)
            if len(values_S) > 1:
                axes.plot(values_S, [y] * len(values_S), **SEED)
    axes.margins(x=0.06)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -3), min(high, 103))


def _key(kind: Kind) -> Line2D:
    face = "white" if kind.hollow else INK
    return Line2D([], [], color=INK, marker=kind.marker, markerfacecolor=face, markersize=6.5, linewidth=0, label=kind.label)


def describe_comparison(summary: Mapping[str, Metrics], said: str) -> str:
    """Return what the dots per detector show: the means on unseen generators."""
    runs = by_detector(summary)
    each = [
        f"{name}: AUROC {percent(spread(own, 'auroc_unseen'))}, fakes found {percent(spread(own, 'f_acc_unseen'))}"
        for name, own in runs.items()
    ]
    return f"A dot with its 95 % interval per detector. On unseen generators, {'; '.join(each)}. {said}".strip()


def describe_shortcut(found: Shortcut) -> str:
    """Return how far the colour moves the score of each detector."""
    runs = by_detector(found.runs)
    each = ", ".join(f"{name} {percent(spread(own, 'colour_auroc'))}" for name, own in runs.items())
    conflict = {name: (spread(own, "auroc_agree"), spread(own, "auroc_conflict")) for name, own in runs.items()}
    areas = ", ".join(f"{name} {mean_text(agree)} and {mean_text(other)}" for name, (agree, other) in conflict.items())
    return (
        f"The chance that a picture with a colour of the fakes scores above one with a colour of the reals: {each}; of a score "
        f"that knows no colour, 50 ± {100 * found.chance:.1f} %. AUROC where the colour agrees with its label in training and "
        f"where it conflicts: {areas}."
    )
