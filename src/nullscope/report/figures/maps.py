"""Maps of features in the plane: what each detector sees, and NS-Net's figure 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from nullscope.evaluation.seeds import Spread
from nullscope.evaluation.semantics import DRAWN_KINDS, KINDS, SETS, Semantics
from nullscope.evaluation.separation import DRAWN, FeatureMap
from nullscope.report.figures.canvas import FAINT, INK, STYLE, WIDTH, Figure, Look, looks, panels, png
from nullscope.report.layout import NO_NUMBER, Column, text
from nullscope.report.sentences import percent

REAL, SEEN, UNSEEN = range(3)
SEES = {"patches": "mosaics of patches", "crop": "a crop of the image", "resize": "the whole image"}  # by the parameter `input`


def features_figure(shown: Mapping[str, FeatureMap], look: Mapping[str, Look]) -> Figure:
    """Return the maps of what the classifiers of the detectors ``shown`` see."""

    def draw(axes: Axes, name: str) -> None:
        own = shown[name]
        kind_M = np.where(own.is_fake_M, np.where(own.is_seen_M, SEEN, UNSEEN), REAL)
        _scatter(axes, own.place_M2, kind_M, look[name].colour)
        axes.set_title(name)
        _number(axes, own.auroc, "")

    canvas = panels(list(shown), draw, height=2.3, x="", y="", share=False)
    colour = next(iter(look.values())).colour
    keys = [_key(REAL, colour, "real"), _key(SEEN, colour, "fake, generator seen")]
    keys.append(_key(UNSEEN, colour, "fake, generator not seen (in the detector's colour)"))
    canvas.legend(handles=keys, loc="outside upper left", ncols=3)
    images = next(iter(shown.values())).images
    limit = f" The first {len(shown)} detectors of the run." if len(look) > len(shown) else ""
    caption = (
        f"t-SNE (perplexity 30) of the features that the classifier sees, first seed, {min(images, DRAWN):,} test images: "
        "neighbours are alike; distances, sizes and directions mean nothing. Number: AUROC in percent of a logistic regression "
        f"on all {images:,} features, real against fake of all generators, cross-validated. It says what the features hold, not "
        f"what the detector's own classifier makes of it: that one knew only the seen generators.{limit}"
    )
    return Figure("features", "What the classifiers see", caption, describe_features(shown), png(canvas))


def semantics_figure(found: Semantics) -> Figure:
    """Return the maps of both sets, before and after the projection."""
    canvas = Canvas(figsize=(WIDTH, 5.2))
    colour = next(iter(looks(["fake"]).values())).colour
    words = {"before": "frozen features", "after": f"without {found.removed} directions"}
    for row, kind in zip(canvas.subplots(2, 2), DRAWN_KINDS, strict=True):
        for axes, word in zip(row, SETS, strict=True):
            _scatter(axes, found.place[kind, word], np.where(found.is_fake, UNSEEN, REAL), colour)
            axes.set_title(f"{word.capitalize()}, {words[kind]}")
            _number(axes, found.auroc[kind, word], "AUROC ")
    canvas.legend(handles=[_key(REAL, colour, "real"), _key(UNSEEN, colour, "fake")], loc="outside upper left", ncols=2)
    caption = (
        f"t-SNE of CLIP's frozen features ({found.detector}, which sees {SEES[found.input]}), {found.count} reals and as many "
        "fakes per panel. Matched: each fake beside the real of the nearest caption; mismatched: reals and fakes from opposite "
        "ends of "
        f"the first principal axis of the captions. Below: without the directions that {found.basis} removes. Number: AUROC of a "
        "logistic regression, cross-validated. NS-Net (figure 1) says that mismatched sets separate by their meaning and matched "
        f"ones hardly, and that after the projection real and fake separate clearly. Here: {describe_semantics(found)}"
    )
    return Figure(
        "semantics", "Matched and mismatched sets", caption, f"Four maps of features. {describe_semantics(found)}", png(canvas)
    )


def _scatter(axes: Axes, place_M2: np.ndarray, kind_M: np.ndarray, colour: str) -> None:
    for kind in (REAL, UNSEEN, SEEN):
        own = place_M2[kind_M == kind]
        axes.plot(own[:, 0], own[:, 1], **_style(kind, colour))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)
    axes.margins(0.04)


def _style(kind: int, colour: str) -> dict[str, object]:
    """Return how an image of a kind is drawn: kinds differ in form as well as in colour."""
    style = {"linewidth": 0, "markersize": 3.6, "markeredgewidth": 0.7}
    if kind == REAL:
        return style | {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "#777777"}
    if kind == SEEN:
        return style | {"marker": "^", "markerfacecolor": INK, "markeredgecolor": INK, "markersize": 3.2}
    return style | {"marker": "x", "markeredgecolor": colour, "markeredgewidth": 0.9}


def _number(axes: Axes, area: Spread | None, name: str) -> None:
    """Write an AUROC at the right of a panel's title, after its name where there is room."""
    shown = text(area, Column("", "")) if area else NO_NUMBER
    axes.set_title(f"{name}{shown}", loc="right", fontweight="normal", fontsize=STYLE["font.size"])


def _key(kind: int, colour: str, label: str) -> Line2D:
    return Line2D([], [], label=label, **_style(kind, colour))


def describe_features(shown: Mapping[str, FeatureMap]) -> str:
    """Return what the maps show, as a number: how well a linear classifier of the features tells real from fake."""
    known = {name: own.auroc for name, own in shown.items() if own.auroc}
    each = ", ".join(f"{name} {percent(known[name])}" for name in sorted(known, key=lambda name: -known[name].mean))
    return f"Maps of each detector's features. Cross-validated AUROC of a linear classifier on them, the best first: {each}."


def describe_semantics(found: Semantics) -> str:
    """Return the result of NS-Net's figure 1: what mismatched captions add to the AUROC, before and after the projection."""
    area = found.auroc
    both = {kind: f"{percent(area[kind, 'matched'])} and {percent(area[kind, 'mismatched'])}" for kind in KINDS}
    added = {kind: f"{100 * (area[kind, 'mismatched'].mean - area[kind, 'matched'].mean):+.1f} points" for kind in KINDS}
    return (
        f"AUROC of real against fake in the matched and in the mismatched set: captions alone {both['captions']}; frozen "
        f"features {both['before']}, {added['before']}; without {found.removed} directions {both['after']}, {added['after']}."
    )
