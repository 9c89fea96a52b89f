"""The report's figures, and those of them that show how the detectors score, are calibrated and were trained."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nullscope.core.contracts import FAKE
from nullscope.evaluation.metrics import wilson
from nullscope.report import findings, forest, maps, robustness
from nullscope.report.canvas import GREY, INK, LINES, SEED, STYLE, WIDTH, Figure, Look, if_seeds, looks, panels, png
from nullscope.report.curves import FPR_G, Curves
from nullscope.report.examples import Example
from nullscope.report.inputs import History, Inputs, Metrics
from nullscope.report.seeds import by_detector
from nullscope.report.tables import subsets_of

BANDS = 4  # of seeds: more of them hide each other


def draw_figures(inputs: Inputs) -> list[Figure]:
    """Return every figure of the report, in its order: those that there is something to show in."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        look, insight = looks(list(inputs.curves)), inputs.insight
        drawn = [
            forest.comparison(inputs.summary, look),
            _generators(inputs.summary, look),
            _roc(inputs.curves, look),
            _logits(inputs.curves, look),
            _calibration(inputs.curves, inputs.summary, look),
            robustness.robustness_figure(inputs.summary, look),
            _training(inputs.histories, look),
            _examples(inputs.examples, inputs.models),
            maps.features(insight.features, look),
            forest.shortcut(insight.shortcut, look) if insight.shortcut else None,
            maps.semantics(insight.semantics) if insight.semantics else None,
        ]
        return [figure for figure in drawn if figure]


def _generators(summary: dict[str, Metrics], look: dict[str, Look]) -> Figure:
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
    return Figure("generators", "Accuracy per generator", caption, findings.generators(summary), png(canvas))


def _roc(curves: dict[str, Curves], look: dict[str, Look]) -> Figure:
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
    return Figure("roc", "ROC", caption, findings.roc(curves), png(canvas))


def _logits(curves: dict[str, Curves], look: dict[str, Look]) -> Figure:
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
    return Figure("logits", "Logits of reals and fakes", caption, findings.logits(curves), png(canvas))


def _calibration(curves: dict[str, Curves], summary: dict[str, Metrics], look: dict[str, Look]) -> Figure:
    errors = {name: float(np.mean([run["ece"] for run in runs])) for name, runs in by_detector(summary).items()}

    def draw(axes: Axes, name: str) -> None:
        bins = curves[name].reliability
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
        axes.plot(100 * bins.predicted_K, 100 * bins.observed_K, color=look[name].colour, linewidth=1.1)
        area = 4 + 160 * bins.count_K / bins.count_K.sum()
        axes.scatter(100 * bins.predicted_K, 100 * bins.observed_K, s=area, color=look[name].colour, linewidths=0)
        axes.annotate(f"error {100 * errors[name]:.1f}", (0.97, 0.05), xycoords="axes fraction", ha="right")
        axes.set(title=name, xlim=(-2, 102), ylim=(-2, 102), xticks=range(0, 101, 25), yticks=range(0, 101, 25))

    canvas = panels(list(curves), draw, height=2.3, x="predicted probability of fake (%)", y="share of fakes (%)")
    caption = (
        "Sigmoid of the logit in 15 bins of equal width; the area of a dot is the share of the images in its bin; "
        "all seeds together. Below the diagonal: too sure of fake; above: too sure of real. The curve moves with the test set's "
        "share of fakes."
    )
    return Figure("calibration", "Calibration", caption, findings.calibration(errors), png(canvas))


def _training(histories: dict[str, list[History]], look: dict[str, Look]) -> Figure:
    def draw(axes: Axes, name: str) -> None:
        runs = histories[name]
        parts = [loss for loss in runs[0].losses if loss != "loss"]
        parts = parts if len(parts) > 1 else []  # a loss of one part is that part
        for run in runs:
            for at, loss in enumerate([*parts, "loss"]):
                main = loss == "loss"
                step, value = _smooth(run, loss)
                style = {"color": look[name].colour, "linewidth": 1.6} if main else {"color": INK, "linewidth": 0.8}
                style["linestyle"] = "-" if main else LINES[(at + 1) % len(LINES)]
                axes.plot(step, value, alpha=1 if run is runs[0] else 0.45, label=loss if run is runs[0] else None, **style)
        phases = runs[0].phases
        for at in range(1, len(phases)):
            if phases[at] != phases[at - 1]:
                axes.axvline(runs[0].step_T[at], color=GREY, linewidth=0.8)
        axes.set(title=name, ylim=(0, None))
        axes.legend(loc="upper right", fontsize=7, handlelength=2.2)

    canvas = panels(list(histories), draw, height=2.2, x="optimiser step", y="loss", share=False)
    caption = (
        "Moving average over 1/25 of the training. Colour: the loss that was minimised; black: its parts, if it has several; "
        "vertical line: a new phase." + if_seeds(histories, " Paler: further seeds.")
    )
    return Figure("training", "Training", caption, findings.training(histories), png(canvas))


def _examples(examples: list[Example], models: dict[str, dict]) -> Figure:
    grid = next(iter(models.values()))["patches"]["grid"]
    canvas = Canvas(figsize=(WIDTH, 2.2))
    pairs = canvas.subplots(1, 2 * len(examples)).reshape(-1, 2)
    for (left, right), example in zip(pairs, examples, strict=True):
        kind = "fake" if example.label == FAKE else "real"
        height, width = example.original_HWC.shape[:2]
        left.imshow(example.original_HWC)
        left.set_title(f"A {kind}, {width} x {height} px")
        right.imshow(_gaps(example.mosaic_HWC, grid))
        right.set_title(f"{grid} x {grid} patches of {example.mosaic_HWC.shape[0] // grid} px")
    for axes in pairs.flat:
        axes.axis("off")
    caption = (
        "A test image as it is, and right of it the patches that a patch detector sees instead, row by row from the lowest "
        "to the highest spectral entropy, with white gaps drawn between them. Little is left of the scene, much of its making."
    )
    return Figure("examples", "What patch selection keeps", caption, findings.examples(examples, grid), png(canvas))


def _smooth(run: History, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that have a loss and its moving average there."""
    there = np.isfinite(run.losses[loss])
    step, value = run.step_T[there], run.losses[loss][there]
    window = max(1, len(value) // 25)
    if not len(value):
        return step, value
    kernel = np.ones(window) / window
    return step[window - 1 :], np.convolve(value, kernel, mode="valid")


def _gaps(mosaic_HWC: np.ndarray, grid: int) -> np.ndarray:
    """Return a mosaic with white lines of 1/16 patch between its patches."""
    side = mosaic_HWC.shape[0] // grid
    gap = max(1, side // 16)
    cells = mosaic_HWC.reshape(grid, side, grid, side, 3)
    padded = np.pad(cells, ((0, 0), (0, gap), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return padded.reshape(grid * (side + gap), grid * (side + gap), 3)[:-gap, :-gap]
