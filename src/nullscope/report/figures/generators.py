"""Accuracy per generator, a panel per detector."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from nullscope.evaluation.intervals import wilson
from nullscope.evaluation.summary import Metrics, by_detector, spread, subsets_of
from nullscope.report.figures.canvas import GREY, INK, SEED, Figure, Look, if_seeds, panels, png
from nullscope.report.headline import hardest_generator
from nullscope.report.sentences import percent


def generators_figure(summary: Mapping[str, Metrics], look: Mapping[str, Look]) -> Figure:
    """Return bars of the reals called real and of each generator's fakes called fake."""
    subsets = subsets_of(summary)
    runs = by_detector(summary)

    def draw(axes: Axes, name: str) -> None:
        rates = [[run["r_acc"] for run in runs[name]], *([run["subsets"][s]["f_acc"] for run in runs[name]] for s in subsets)]
        counts = [runs[name][0]["n_real"], *(runs[name][0]["subsets"][s]["n_fake"] for s in subsets)]
        means = np.array([np.mean(values) for values in rates])
        bounds = np.array([wilson(mean, count) for mean, count in zip(means, counts, strict=True)])
        colours = [GREY, *[look[name].colour] * len(subsets)]
        rows = np.arange(len(means))
        bars = axes.barh(rows, 100 * means, color=colours, height=0.72, alpha=0.85)
        for bar, seen in zip(list(bars)[1:], subsets.values(), strict=True):
            bar.set_hatch("" if seen else "////")
            bar.set_edgecolor("white")
            bar.set_linewidth(0)
        axes.hlines(rows, 100 * bounds[:, 0], 100 * bounds[:, 1], color=INK, linewidth=1.1)
        if len(runs[name]) > 1:
            for row, values in enumerate(rates):
                axes.plot(100 * np.array(values), [row] * len(values), **SEED, clip_on=False)
        for row, mean in enumerate(means):
            axes.text(105, row, f"{100 * mean:.0f}", va="center")
        axes.set(title=name, xlim=(0, 100), ylim=(len(means) - 0.4, -0.6), xticks=range(0, 101, 25))
        axes.set_yticks(rows, ["real", *(f"{subset} (seen)" if seen else subset for subset, seen in subsets.items())])
        axes.grid(axis="y", visible=False)

    canvas = panels(list(runs), draw, height=0.75 + 0.21 * (len(subsets) + 1), x="called what it is (%)", y="")
    caption = (
        "Grey: reals called real. Colour: each generator's fakes called fake; solid where the generator was in the training set, "
        "hatched where it was not. Black line: Wilson's 95 % interval for the number of test images."
        + if_seeds(runs, " Circles: the seeds; bar and number: their mean.")
    )
    return Figure("generators", "Accuracy per generator", caption, describe_generators(summary), png(canvas))


def describe_generators(summary: Mapping[str, Metrics]) -> str:
    """Return what the bars per generator show."""
    runs = by_detector(summary)
    means = {name: (percent(spread(own, "r_acc")), percent(spread(own, "f_acc"))) for name, own in runs.items()}
    each = "; ".join(f"{name}: reals {reals}, fakes {fakes}" for name, (reals, fakes) in means.items())
    return f"Bars of accuracy per generator and detector. Means: {each}. {hardest_generator(runs, subsets_of(summary))}"
