"""Figures of the embedded encoders' training, drawn from its log alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from nullscope.core.files import replacing
from nullscope.world.degrade import AMOUNTS, KEEP_RESOLUTION_SHARE
from nullscope.world.measure import PARTS
from nullscope.world.scenes import BACKGROUNDS, COLOURS, GROUNDS, OBJECTS, SIZES

_GUESS = {part: 1 / len(choices) for part, choices in zip(PARTS, (SIZES, COLOURS, OBJECTS, GROUNDS, BACKGROUNDS), strict=True)}
_BAR, _GUESS_COLOUR = "#33658a", "#b23a48"


def draw(log: dict[str, Any], folder: Path) -> None:
    """Write four PNG files to ``folder``: losses, captions of the BLIP, retrieval and degradations of the CLIP."""
    for figure in (losses, captions, retrieval, degradations):
        _save(figure, log, folder / f"{figure.__name__}.png")


def _save(figure: Callable[[dict[str, Any], Axes], None], log: dict[str, Any], path: Path) -> None:
    canvas, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    figure(log, axes)
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        canvas.savefig(partial, format="png", dpi=110, metadata={"Software": None})
    plt.close(canvas)


def losses(log: dict[str, Any], axes: Axes) -> None:
    """Loss per epoch of both encoders."""
    curves = {"BLIP: captions": [epoch["loss"] for epoch in log["blip"]["epochs"]]}
    for name in ("contrastive", "degradations"):
        curves[f"CLIP: {name}"] = [epoch["loss"][name] for epoch in log["clip"]["epochs"]]
    for name, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, marker=".", label=name)
    axes.set(title="Pre-training of the embedded encoders", xlabel="epoch", ylabel="mean loss of the epoch", yscale="log")
    axes.legend()


def captions(log: dict[str, Any], axes: Axes) -> None:
    """Exactness of the BLIP's captions, whole and by part."""
    exact = log["blip"]["epochs"][-1]["exactness"]
    _bars(axes, exact, _GUESS)
    axes.set(title="BLIP: greedy captions of pictures it never saw", ylabel="share that is exact")


def retrieval(log: dict[str, Any], axes: Axes) -> None:
    """Caption of a picture and picture of a caption, found by the CLIP."""
    found = log["clip"]["epochs"][-1]["retrieval"]
    count = log["made"]["pictures"]["held-out"]
    _bars(axes, found, _GUESS | {f"picture in top {top}": top / count for top in (1, 10)})
    axes.set_title("CLIP: the nearest of all captions to a degraded picture,\nand the nearest pictures to a caption")
    axes.set_ylabel("share that is right")
    axes.tick_params(axis="x", labelrotation=20)


def degradations(log: dict[str, Any], axes: Axes) -> None:
    """What the CLIP's embedding says about how a picture was degraded."""
    read = log["clip"]["epochs"][-1]["degradations"]
    kind = next(name for name in read if name not in AMOUNTS)
    _bars(axes, {name: read[name] for name in (*AMOUNTS, kind)}, {kind: KEEP_RESOLUTION_SHARE})
    axes.set_title("CLIP: how a mosaic's picture was degraded,\nread linearly from the embedding")
    axes.set_ylabel("R² (last bar: accuracy)")


def _bars(axes: Axes, heights: dict[str, float], guess: dict[str, float]) -> None:
    bars = axes.bar(list(heights), list(heights.values()), color=_BAR)
    axes.bar_label(bars, fmt="%.2f")
    for place, name in enumerate(heights):
        if name in guess:
            axes.plot([place - 0.4, place + 0.4], [guess[name]] * 2, color=_GUESS_COLOUR, label="blind guess")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:1], labels[:1], loc="lower right")
    axes.set_ylim(0, 1.08)
