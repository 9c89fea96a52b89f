"""What degraded images do to the detectors: DGS-Net's tables 5 and 6, and what they leave out.

The papers print balanced accuracy alone. A detector of pixel statistics calls everything real once images have been compressed,
and keeps half of its balanced accuracy by that: so reals and fakes stand apart here, and AUROC beside them, which needs no
threshold. The threshold is that of clean images throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nullscope.core.contracts import CLEAN
from nullscope.report.canvas import GREY, INK, Figure, Look, if_seeds, panels, png
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.seeds import by_detector, difference, spread

KEYS = {
    "r_acc": "Reals called real",
    "f_acc": "Fakes called fake",
    "mean_balanced": "Balanced accuracy",
    "ap": "AP",
    "auroc": "AUROC",
}
FAMILIES = {
    "jpeg": "JPEG quality",
    "webp": "WebP quality",
    "blur": "Gaussian blur, sigma (px)",
    "resize": "Resized by",
    "crop": "Cut to (px)",
}
DRAWN = {
    "r_acc": ("reals called real", "o", "-"),
    "f_acc": ("fakes called fake (in the detector's colour)", "s", "-"),
    "auroc": ("AUROC", ".", ":"),
}

Metrics = dict[str, Any]


def degradations_of(summary: dict[str, Metrics]) -> list[str]:
    """Return the degradations that all runs were scored under, in the order of their kind, and of a kind the weakest first.

    Of sizes the largest comes first, be it larger than the image."""
    found = [set(run.get("degradations", {})) for run in summary.values()]
    return sorted(set.intersection(*found), key=_strength) if found else []


def robustness_tables(summary: dict[str, Metrics]) -> list[Table]:
    """Return the papers' table, and the one with reals and fakes apart; none if no degraded image was scored."""
    names = degradations_of(summary)
    return [balanced_table(summary, names), detail_table(summary, names)] if names else []


def balanced_table(summary: dict[str, Metrics], names: list[str]) -> Table:
    """Return one row per detector with its balanced accuracy under every degradation, as DGS-Net's tables 5 and 6."""
    columns = [detector_column(), Column(CLEAN, "as they are", best="max")]
    columns += [Column(name, _amount(name), group=_family(name), best="max") for name in names]
    rows: list[list[Cell]] = []
    for detector, runs in by_detector(summary).items():
        rows.append([detector, *(spread(_under(runs, name), "mean_balanced") for name in (CLEAN, *names))])
    note = (
        "Balanced accuracy in percent, mean over subsets, at the threshold of logit 0. 50 is what saying the same of all gives."
    )
    return Table("robustness", "Robustness", note, columns, rows)


def detail_table(summary: dict[str, Metrics], names: list[str]) -> Table:
    """Return one row per detector and degradation: reals and fakes apart, and what the degradation takes off."""
    columns = [detector_column(), Column("degradation", "Images", "text")]
    columns += [Column(key, title) for key, title in KEYS.items()]
    columns.append(Column("auroc_difference", "AUROC, difference to clean", "points"))
    rows: list[list[Cell]] = []
    for detector, runs in by_detector(summary).items():
        clean = _under(runs, CLEAN)
        for name in (CLEAN, *names):
            own = _under(runs, name)
            less = "" if name == CLEAN else difference(own, clean, "auroc")
            rows.append([detector, words(name), *(spread(own, key) for key in KEYS), less])
    note = "Percent, means over subsets. AUROC needs no threshold: what it keeps, a threshold chosen for such images could keep."
    return Table("robustness_detail", "Robustness, reals and fakes apart", note, columns, rows)


def robustness_figure(summary: dict[str, Metrics], look: dict[str, Look]) -> Figure | None:
    """Return one panel per detector with its accuracies under every degradation; none if no degraded image was scored.

    K degradations with none as the first of them, S seeds."""
    names = degradations_of(summary)
    if not names:
        return None
    runs, states = by_detector(summary), [CLEAN, *names]
    kinds: dict[str, list[int]] = {}  # of degradations: no line leads from one to another
    for place, name in enumerate(states):
        kinds.setdefault(name.partition("_")[0], []).append(place)

    def draw(axes: Axes, detector: str) -> None:
        for key, (_, marker, line) in DRAWN.items():
            percent_KS = 100 * np.array([[run[key] for run in _under(runs[detector], name)] for name in states])
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
    return Figure("robustness", "Robustness", caption, alt(summary, names), png(canvas))


def alt(summary: dict[str, Metrics], names: list[str]) -> str:
    """Return what the figure shows, in words: every detector's worst degradation, and what reals and fakes do under it."""
    each = []
    for detector, runs in by_detector(summary).items():
        means = {
            name: {key: float(np.mean([run[key] for run in _under(runs, name)])) for key in KEYS} for name in (CLEAN, *names)
        }
        worst = min(names, key=lambda name: means[name]["mean_balanced"])
        before, after = means[CLEAN], means[worst]
        each.append(
            f"{detector} is worst under {words(worst)}: balanced accuracy {100 * before['mean_balanced']:.1f} to "
            f"{100 * after['mean_balanced']:.1f} %, reals {100 * before['r_acc']:.1f} to {100 * after['r_acc']:.1f} %, fakes "
            f"{100 * before['f_acc']:.1f} to {100 * after['f_acc']:.1f} %"
        )
    return f"Accuracy under degradations, one panel per detector. {'; '.join(each)}."


def words(name: str) -> str:
    """Return a degradation as people say it."""
    kind, _, amount = name.partition("_")
    said = {
        CLEAN: "as they are",
        "jpeg": f"JPEG {amount}",
        "webp": f"WebP {amount}",
        "blur": f"blur {amount}",
        "resize": f"size x {amount}",
        "crop": f"cut to {amount} px",
    }
    return said.get(kind, name.replace("_", " "))


def _under(runs: list[Metrics], name: str) -> list[Metrics]:
    return runs if name == CLEAN else [run["degradations"][name] for run in runs]


def _family(name: str) -> str:
    return FAMILIES.get(name.partition("_")[0], "Other")


def _amount(name: str) -> str:
    kind, _, amount = name.partition("_")
    return amount if kind in FAMILIES else name.replace("_", " ")


def _strength(name: str) -> tuple[int, float, str]:
    kind, _, amount = name.partition("_")
    if kind not in FAMILIES:
        return len(FAMILIES), 0.0, name
    weakest_first = float(amount) if kind == "blur" else -float(amount)
    return list(FAMILIES).index(kind), weakest_first, name
