"""What all figures share: style, panels, and how they become bytes. A detector has the same colour and line in all of them.

The same numbers give the same bytes: matplotlib's own defaults instead of the user's, its bundled font, no metadata.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nullscope.report.project import is_official

# Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#595959")
LINES = ("-", "--", ":", "-.")  # once the colours are used up
# Of weights that were not trained here, in a line of their own: Tol's muted colours that are far from those above.
OFFICIAL_COLOURS, OFFICIAL_LINE = ("#882255", "#999933", "#332288", "#117733", "#AA4499"), (0, (5, 1, 1, 1, 1, 1))
INK, GREY, FAINT = "#222222", "#8C8C8C", "#DDDDDD"
SEED = {"marker": "o", "linewidth": 0, "color": "white", "markeredgecolor": INK, "markersize": 3.2}  # a circle per seed
WIDTH = 7.2  # inches
DPI = 170
STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": DPI,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw with matplotlib's own defaults and `STYLE`, whatever the user's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class Figure:
    """A picture with its words."""

    name: str  # of its file
    title: str
    caption: str  # what is drawn, and how
    alt: str  # what it shows
    png: bytes


@dataclass(frozen=True)
class Look:
    """How a detector is drawn, everywhere."""

    colour: str
    line: str | tuple[float, tuple[float, ...]]  # a name, or where it begins and the lengths of dashes and gaps


def looks(names: list[str]) -> dict[str, Look]:
    """Return the look of every detector, by its place among those that were trained here or among the others."""
    trained, official = ([name for name in names if is_official(name) is kind] for kind in (False, True))
    own = {name: Look(COLOURS[at % len(COLOURS)], LINES[at // len(COLOURS) % len(LINES)]) for at, name in enumerate(trained)}
    own |= {name: Look(OFFICIAL_COLOURS[at % len(OFFICIAL_COLOURS)], OFFICIAL_LINE) for at, name in enumerate(official)}
    return {name: own[name] for name in names}


def if_seeds(runs: Mapping[str, Sized], sentence: str) -> str:
    """Return the sentence if there are several seeds to speak of."""
    return sentence if len(next(iter(runs.values()))) > 1 else ""


def panels(names: list[str], draw: Callable[[Axes, str], None], *, height: float, x: str, y: str, share: bool = True) -> Canvas:
    """Return one panel per detector, three to a row, with the axes named once. ``height`` of a row in inches."""
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    canvas = Canvas(figsize=(WIDTH, height * rows + 0.5))
    grid = canvas.subplots(rows, columns, sharey=share and "row", squeeze=False)
    for at, axes in enumerate(grid.flat):
        if at < len(names):
            draw(axes, names[at])
        else:
            axes.axis("off")
    canvas.supxlabel(x, fontsize=STYLE["font.size"])
    canvas.supylabel(y, fontsize=STYLE["font.size"])
    return canvas


def png(canvas: Canvas) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
