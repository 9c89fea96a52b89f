"""ROC curves, histograms of logits, and calibration: figures of `evaluation.curves`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nullscope.evaluation.curves import FPR_G, Curves
from nullscope.evaluation.summary import Metrics, by_detector
from nullscope.report.figures.canvas import GREY, INK, WIDTH, Figure, Look, if_seeds, panels, png

BANDS = 4  # detectors: with more, the bands of their seeds hide each other


def roc_figure(curves: Mapping[str, Curves], look: Mapping[str, Look]) -> Figure:
    """Return the ROC curve of every detector, over all test images at once."""
    canvas = Canvas(figsize=(WIDTH, 4.6))
    axes = canvas.subplots()
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    for rate in (1, 5):
        axes.axvline(rate, color=GREY, linewidth=0.8, linestyle=":")
    for name in sorted(curves, key=lambda name: -curves[name].auroc_S.mean()):
        tpr_SG, style = 100 * curves[name].tpr_SG, look[name]
        if len(curves) <= BANDS:
            low, high = tpr_SG.min(0), tpr_SG.max(0)
            axes.fill_between(100 * FPR_G, low, high, color=style.colour, alpha=0.15, linewidth=0, step="post")
        label = f"{name}  {100 * curves[name].auroc_S.mean():.1f}"
        axes.step(100 * FPR_G, tpr_SG.mean(0), where="post", color=style.colour, linestyle=style.line, linewidth=1.5, label=label)
    axes.set(xlim=(0, 100), ylim=(0, 101), xlabel="reals called fake (%)", ylabel="fakes called fake (%)", aspect="equal")
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title="AUROC (%)", alignment="left")
    caption = (
        "All test images at once, over every threshold. Dotted: 1 % and 5 % false alarms; grey diagonal: guessing."
        + if_seeds(
            {name: own.auroc_S for name, own in curves.items()},
            " Line: mean over the seeds at equal false alarms"
            + ("; band: lowest to highest seed." if len(curves) <= BANDS else "."),
        )
    )
    return Figure("roc", "ROC", caption, describe_roc(curves), png(canvas))


def logits_figure(curves: Mapping[str, Curves], look: Mapping[str, Look]) -> Figure:
    """Return the histograms of the logits of reals, seen fakes and unseen fakes."""

    def draw(axes: Axes, name: str) -> None:
        histogram = curves[name].histogram
        axes.stairs(100 * histogram.shares["real"], histogram.edges, fill=True, color="#C4C4C4")
        axes.stairs(100 * histogram.shares["unseen"], histogram.edges, fill=True, color=look[name].colour, alpha=0.5)
        axes.stairs(100 * histogram.shares["seen"], histogram.edges, color=INK, linewidth=1.0)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set(title=name, xlim=(histogram.edges[0], histogram.edges[-1]))

    canvas = panels(list(curves), draw, height=1.9, x="logit (above 0: called fake)", y="share of the images (%)")
    colour = look[next(iter(look))].colour
    kinds = [
        Patch(color="#C4C4C4", label="real"),
        Line2D([], [], color=INK, linewidth=1.0, label="fake, generator seen"),
        Patch(color=colour, alpha=0.5, label="fake, generator not seen (in the detector's colour)"),
    ]
    canvas.legend(handles=kinds, loc="outside upper left", ncols=3)
    caption = (
        "Each kind sums to 100 %; all seeds together. Dotted: the threshold. The 0.2 % of the logits beyond either end are "
        "counted in the outermost bin."
    )
    return Figure("logits", "Logits of reals and fakes", caption, describe_logits(curves), png(canvas))


def calibration_figure(curves: Mapping[str, Curves], summary: Mapping[str, Metrics], look: Mapping[str, Look]) -> Figure:
    """Return the share of fakes against the predicted probability of fake."""
    errors = {name: float(np.mean([run["brier"] for run in runs])) for name, runs in by_detector(summary).items()}

    def draw(axes: Axes, name: str) -> None:
        bins = curves[name].reliability
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
        axes.plot(100 * bins.predicted_K, 100 * bins.observed_K, color=look[name].colour, linewidth=1.1)
        area = 4 + 160 * bins.weight_K
        axes.scatter(100 * bins.predicted_K, 100 * bins.observed_K, s=area, color=look[name].colour, linewidths=0)
        axes.annotate(f"Brier score {errors[name]:.3f}", (0.97, 0.05), xycoords="axes fraction", ha="right")
        axes.set(title=name, xlim=(-2, 102), ylim=(-2, 102), xticks=range(0, 101, 25), yticks=range(0, 101, 25))

    canvas = panels(list(curves), draw, height=2.3, x="predicted probability of fake (%)", y="share of fakes (%)")
    caption = (
        "Sigmoid of the logit in 15 bins of equal width; the area of a dot is the share of the images in its bin; "
        "all seeds together, reals and fakes weighed so that half of the images are fake. Below the diagonal: too sure of fake; "
        "above: too sure of real."
    )
    return Figure("calibration", "Calibration", caption, describe_calibration(errors), png(canvas))


def describe_roc(curves: Mapping[str, Curves]) -> str:
    """Return what the ROC curves show."""
    ranked = sorted(curves, key=lambda name: -curves[name].auroc_S.mean())
    each = ", ".join(f"{name} {100 * curves[name].auroc_S.mean():.1f} %" for name in ranked)
    rates = {name: own.tpr_1_S.mean() for name, own in curves.items() if own.tpr_1_S is not None}
    few = max(rates, key=rates.__getitem__, default="")
    found = f"; at 1 % false alarms {few} finds the most fakes, {100 * rates[few]:.1f} %" if few else ""
    return f"ROC curves. Area under the curve: {each}{found}."


def describe_logits(curves: Mapping[str, Curves]) -> str:
    """Return what the histograms of logits show: which side of the threshold each kind lies on."""
    each = []
    for name, own in curves.items():
        above = {kind: 100 * share[own.histogram.edges[:-1] >= 0].sum() for kind, share in own.histogram.shares.items()}
        parts = [f"{above['real']:.0f} % of the reals"]
        parts += [f"{above[kind]:.0f} % of the {kind} fakes" for kind in ("seen", "unseen") if own.histogram.shares[kind].any()]
        each.append(f"{name}: {', '.join(parts)}")
    return f"Histograms of logits. Above the threshold lie, by detector, {'; '.join(each)}."


def describe_calibration(errors: Mapping[str, float]) -> str:
    """Return what the calibration curves show."""
    each = ", ".join(f"{name} {errors[name]:.3f}" for name in sorted(errors, key=lambda name: errors[name]))
    return f"Share of fakes against predicted probability. Brier score, the best first: {each}."
