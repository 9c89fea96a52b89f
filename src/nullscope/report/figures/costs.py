"""What a detector's mistakes cost where few images are fake, or where one mistake costs more than the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure as Canvas

from nullscope.evaluation.summary import Metrics, by_detector, spread
from nullscope.report.figures.canvas import GREY, WIDTH, Figure, Look, png


def cost_figure(summary: Mapping[str, Metrics], look: Mapping[str, Look]) -> Figure | None:
    """Return the cost curves at the threshold of logit 0 (Drummond & Holte 2006); None where no detector has reals and fakes.

    Across: the share of the worst possible cost that the fakes could cause, c = p m / (p m + (1 - p) a), where p is the share of
    fakes, m the cost of a missed fake, a that of a false alarm; with equal costs, the share of fakes. Up: the cost, as a share of
    that of being always wrong.
    """
    share = np.linspace(0, 1, 101)
    rates = {name: (spread(runs, "r_acc"), spread(runs, "f_acc")) for name, runs in by_detector(summary).items()}
    costs = {
        name: (1 - share) * (1 - reals.mean) + share * (1 - fakes.mean)
        for name, (reals, fakes) in rates.items()
        if reals and fakes
    }
    if not costs:
        return None
    canvas = Canvas(figsize=(WIDTH, 3.6))
    axes = canvas.subplots()
    axes.plot(100 * share, 100 * np.minimum(share, 1 - share), color=GREY, linewidth=1.0, label="no detector")
    for name, cost in costs.items():
        axes.plot(100 * share, 100 * cost, color=look[name].colour, linestyle=look[name].line, linewidth=1.5, label=name)
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="share of fakes, weighted by the costs (%)", ylabel="cost (% of always wrong)")
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    caption = (
        "Cost at the threshold of logit 0, by how much of the possible cost lies with fakes: with equal costs, the share of the "
        "images that are fake. Grey: calling all images real, or all fake, whichever is cheaper. Where a line lies above "
        "the grey one, the detector at this threshold is worse than none."
    )
    return Figure("costs", "What mistakes cost", caption, _described(share, costs), png(canvas))


def _described(share: np.ndarray, costs: Mapping[str, np.ndarray]) -> str:
    """Return the figure in words: from which share of fakes to which a detector is better than none."""
    parts = []
    for name, cost in costs.items():
        better = share[cost < np.minimum(share, 1 - share)]
        span = f"from {100 * better[0]:.0f} to {100 * better[-1]:.0f} %" if len(better) else "nowhere"
        parts.append(f"{name} {span}")
    return f"Cost curves. Better than no detector, by the share of fakes: {'; '.join(parts)}."
