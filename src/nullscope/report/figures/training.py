"""The training: losses per step, and average precision and AUROC on the validation split per epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from nullscope.evaluation.history import History, smooth
from nullscope.report.figures.canvas import GREY, INK, LINES, Figure, Look, if_seeds, panels, png

VALIDATION = {"val_ap": ("average precision", "--"), "val_auroc": ("AUROC", "-")}  # column -> its name and line


def training_figure(histories: Mapping[str, Sequence[History]], look: Mapping[str, Look]) -> Figure | None:
    """Return the loss over the training of every detector that has a history; None if none has one."""
    if not histories:
        return None

    def draw(axes: Axes, name: str) -> None:
        runs = histories[name]
        parts = [loss for loss in runs[0].losses if loss != "loss"]
        parts = parts if len(parts) > 1 else []  # a loss of one part is that part
        for run in runs:
            first = run is runs[0]
            for at, loss in enumerate([*parts, "loss"]):
                main = loss == "loss"
                step, value = smooth(run, loss)
                style = {"color": look[name].colour, "linewidth": 1.6} if main else {"color": INK, "linewidth": 0.8}
                style["linestyle"] = "-" if main else LINES[(at + 1) % len(LINES)]
                axes.plot(step, value, alpha=1 if first else 0.45, label=loss if first else None, **style)
            step, value = run.points("val_loss")
            if len(step):
                style = {"color": look[name].colour, "marker": "D", "markersize": 3.5, "linewidth": 0}
                axes.plot(step, value, alpha=1 if first else 0.45, label="validation" if first else None, **style)
        phases = runs[0].phases
        for at in range(1, len(phases)):
            if phases[at] != phases[at - 1]:
                axes.axvline(runs[0].step_T[at], color=GREY, linewidth=0.8)
        axes.set(title=name, ylim=(0, None))
        axes.legend(loc="upper right", fontsize=7, handlelength=2.2)

    canvas = panels(list(histories), draw, height=2.2, x="optimiser step", y="loss", share=False)
    validated = any(len(run.points("val_loss")[0]) for runs in histories.values() for run in runs)
    caption = (
        "Moving average over 1/25 of the training. Colour: the loss that was minimised; black: its parts, if it has several; "
        "vertical line: a new phase."
        + (" Diamonds: the loss on the validation split after each epoch." if validated else "")
        + if_seeds(histories, " Paler: further seeds.")
        + _left_out(histories, look)
    )
    return Figure("training", "Training", caption, describe_training(histories), png(canvas))


def validation_figure(histories: Mapping[str, Sequence[History]], look: Mapping[str, Look]) -> Figure | None:
    """Return AP and AUROC on the validation split after each epoch; None if no history has them."""
    shown = {name: runs for name, runs in histories.items() if any(len(runs[0].points(key)[0]) for key in VALIDATION)}
    if not shown:
        return None

    def draw(axes: Axes, name: str) -> None:
        for run in shown[name]:
            first = run is shown[name][0]
            for key, (label, line) in VALIDATION.items():
                step, value = run.points(key)
                style = {"color": look[name].colour, "linestyle": line, "linewidth": 1.2, "marker": "o", "markersize": 3}
                axes.plot(step, 100 * value, alpha=1 if first else 0.45, label=label if first else None, **style)
        axes.set(title=name, xlim=(0, None))
        axes.legend(loc="lower right", fontsize=7, handlelength=2.2)

    canvas = panels(list(shown), draw, height=2.0, x="optimiser step", y="percent")
    caption = (
        "Average precision and AUROC of the images of the validation split, after each epoch."
        + if_seeds(shown, " Paler: further seeds.")
        + _left_out(shown, look)
    )
    return Figure("validation", "Validation", caption, describe_validation(shown), png(canvas))


def _left_out(shown: Mapping[str, Sequence[History]], look: Mapping[str, Look]) -> str:
    """Return the sentence that names the detectors that are not in a figure."""
    names = [name for name in look if name not in shown]
    return f" Without a record of these values, and not drawn: {', '.join(names)}." if names else ""


def describe_training(histories: Mapping[str, Sequence[History]]) -> str:
    """Return what the training curves show."""
    each = []
    for name, runs in histories.items():
        loss = runs[0].values["loss"]
        window = max(1, len(loss) // 20)
        each.append(f"{name} from {np.nanmean(loss[:window]):.3g} to {np.nanmean(loss[-window:]):.3g} in {len(loss):,} steps")
    return f"Loss over the training of each detector: {'; '.join(each)}."


def describe_validation(histories: Mapping[str, Sequence[History]]) -> str:
    """Return what the validation curves show."""
    each = []
    for name, runs in histories.items():
        _, value = runs[0].points("val_auroc")
        if len(value):
            each.append(f"{name} {100 * value[0]:.1f} to {100 * value[-1]:.1f} %")
    return f"AP and AUROC on the validation split. AUROC after the first and after the last epoch: {'; '.join(each)}."
