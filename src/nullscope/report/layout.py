"""What a table is, and how it is written: as CSV, as Markdown and in the terminal. (`page.html.j2` writes the HTML.)

Columns of percent hold fractions and show percent. Columns of points hold differences of fractions, and show them in percent with
their sign. A number that is uncertain is a `Spread`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Table as RichTable

from nullscope.evaluation.seeds import Spread, is_outside, is_significant

NO_NUMBER = "n/a"
MARK = "*"


Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Column:
    """One column: its name in the CSV, its title for people, and what its numbers are."""

    key: str
    title: str
    unit: Literal["text", "count", "percent", "points", "number"] = "percent"
    group: str = ""  # a heading over neighbouring columns
    best: Literal["", "max", "min"] = ""  # which of its numbers is set in bold
    against: tuple[float, float] | None = None  # limits: a 95 % interval that lies wholly outside of them is marked
    tested: bool = False  # differences with p-values: one below 0.05 is marked

    @property
    def full_title(self) -> str:
        """The title with its group, for a medium without headings over headings."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Table:
    """Rows under columns, with the sentence that says how to read them."""

    name: str
    title: str
    note: str
    columns: list[Column]
    rows: list[list[Cell]]

    def is_best(self, row: int, column: int) -> bool:
        """Return whether a cell shows the best number of its column, or shares it: among rows of the same kind of weights."""
        whose = next((at for at, own in enumerate(self.columns) if own.key == "weights"), None)
        peers = [cells for cells in self.rows if whose is None or cells[whose] == self.rows[row][whose]]
        shown = [_digits(cells[column].mean, self.columns[column]) for cells in peers if isinstance(cells[column], Spread)]
        cell, best = self.rows[row][column], self.columns[column].best
        if not best or len(shown) < 2 or not isinstance(cell, Spread):
            return False
        return float(_digits(cell.mean, self.columns[column])) == (max if best == "max" else min)(map(float, shown))

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring columns under one heading, as (heading, number of columns)."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def detector_column() -> Column:
    """Return the column of the detectors' names, which the page gives their colours."""
    return Column("detector", "Detector", "text")


def text(cell: Cell, column: Column) -> str:
    """Return what a cell shows; of a `Spread`, its mean, with `MARK` where `is_marked`."""
    if cell is None:
        return NO_NUMBER
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Spread):
        return _digits(cell.mean, column) + (MARK if is_marked(cell, column) else "")
    return _digits(cell, column)


def is_marked(cell: Cell, column: Column) -> bool:
    """Return whether a cell is said to differ: by its p-value where the column has been tested, else by its interval."""
    return is_significant(cell) if column.tested else is_outside(cell, column.against)


def spread_text(cell: Cell, column: Column) -> str:
    """Return ``± <half>`` of a difference with an interval, ``<low> to <high>`` of any other number with a span, else nothing.

    Intervals of rates are not symmetric: half of their width would say that 100 % may be exceeded.
    """
    if not isinstance(cell, Spread) or cell.span == "none":
        return ""
    if cell.span == "interval" and column.unit == "points":
        return f"± {_digits(cell.half, column).removeprefix('+')}"
    return f"{_digits(cell.low, column)} to {_digits(cell.high, column)}"


def inline_spread(cell: Cell, column: Column) -> str:
    """Return `spread_text` as it stands behind the number in the same line: two ends in brackets."""
    spread = spread_text(cell, column)
    return f"({spread})" if " to " in spread else spread


def yes_no(fact: bool | None) -> str:
    """Return ``yes`` or ``no``; nothing where the question does not apply."""
    return "" if fact is None else ("yes" if fact else "no")


def to_csv(table: Table) -> str:
    """Return a table as CSV: plain numbers, their unit in the name of the column, the ends of a span in columns of their own.

    ``_min`` and ``_max`` are the lowest and the highest seed, ``_low`` and ``_high`` the ends of a 95 % interval.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [_ends([row[at] for row in table.rows]) for at in range(len(table.columns))]
    header: list[str] = []
    for column, own in zip(table.columns, ends, strict=True):
        name = f"{column.key}_{column.unit}" if column.unit in ("percent", "points") else column.key
        header += [name, *(f"{name}_{end}" for end in own)]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for cell, column, own in zip(row, table.columns, ends, strict=True):
            line += [_plain(value, column) for value in _values(cell)[: 1 + len(own)]]
        writer.writerow(line)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, titled, with the best numbers in bold."""
    lines = [f"## {table.title}", "", table.note, ""]
    lines.append("| " + " | ".join(_escaped(column.full_title) for column in table.columns) + " |")
    lines.append("|" + "|".join(" --- " if column.unit == "text" else " ---: " for column in table.columns) + "|")
    for number, row in enumerate(table.rows):
        cells = []
        for at, (cell, column) in enumerate(zip(row, table.columns, strict=True)):
            shown = _escaped(text(cell, column))
            shown = f"**{shown}**" if table.is_best(number, at) else shown
            cells.append(" ".join(filter(None, (shown, inline_spread(cell, column)))))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def print_table(table: Table, console: Console, *, spans: bool = True) -> None:
    """Print an aligned table as wide as it needs to be: no number is cut, however narrow the console is.

    ``spans``: with the interval of every number below it.
    """
    shown = RichTable(box=SIMPLE_HEAD)
    for column in table.columns:
        shown.add_column("\n".join(part for part in (column.group, column.title) if part), justify=_justify(column), no_wrap=True)
    for row in table.rows:
        pairs = list(zip(row, table.columns, strict=True))
        shown.add_row(*("\n".join(filter(None, (text(*pair), spread_text(*pair) if spans else ""))) for pair in pairs))
    # console.print never goes beyond the console's width, so the lines are rendered at their own width first.
    unbound = console.options.update(width=10_000)
    lines = console.render_lines(shown, unbound.update(width=Measurement.get(console, unbound, shown).maximum), pad=False)
    console.print(table.title, style="bold", soft_wrap=True)
    console.print(Segments([part for line in lines for part in (*line, Segment.line())]), end="", soft_wrap=True)
    console.print(table.note, highlight=False, soft_wrap=True)


def _justify(column: Column) -> Literal["left", "right"]:
    return "left" if column.unit == "text" else "right"


def _digits(value: float, column: Column) -> str:
    if column.unit == "percent":
        return f"{100 * value:.1f}"
    if column.unit == "points":
        return f"{100 * value:+.1f}".replace("-0.0", "+0.0")
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _ends(cells: list[Cell]) -> tuple[str, ...]:
    """Return what the columns for the ends of a column's spans are called in the CSV. A column has one kind of span."""
    spans = {cell.span for cell in cells if isinstance(cell, Spread)}
    if "interval" in spans:
        return "low", "high"
    return ("min", "max") if "range" in spans else ()


def _values(cell: Cell) -> list[Cell]:
    if isinstance(cell, str):
        return [cell, None, None]  # words, such as a printed number, span nothing
    return [cell.mean, cell.low, cell.high] if isinstance(cell, Spread) else [cell] * 3


def _plain(value: Cell, column: Column) -> str:
    if value is None or isinstance(value, (str, int)):
        return "" if value is None else str(value)
    return f"{100 * value:.4f}" if column.unit in ("percent", "points") else f"{value:.6g}"


def _escaped(words: str) -> str:
    return words.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
