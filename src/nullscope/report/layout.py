"""What a table is, and how it is written: CSV, Markdown, terminal. (`page.html.j2` writes the HTML.)

Percent columns hold fractions and show percent. A cell over seeds is a `Spread`: mean, lowest and highest.
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

NO_NUMBER = "n/a"


@dataclass(frozen=True)
class Spread:
    """A number over the seeds."""

    mean: float
    low: float
    high: float
    seeds: int


Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Column:
    """One column: its name in the CSV, its title for people, and what its numbers are."""

    key: str
    title: str
    unit: Literal["text", "count", "percent", "number"] = "percent"
    group: str = ""  # a heading over neighbouring columns
    best: Literal["", "max", "min"] = ""  # which of its numbers is set in bold

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
        """Return whether a cell shows the best number of its column, or shares it."""
        shown = [_digits(cells[column].mean, self.columns[column]) for cells in self.rows if isinstance(cells[column], Spread)]
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


def text(cell: Cell, column: Column) -> str:
    """Return what a cell shows; of a `Spread`, its mean."""
    if cell is None:
        return NO_NUMBER
    if isinstance(cell, str):
        return cell
    return _digits(cell.mean if isinstance(cell, Spread) else cell, column)


def spread_text(cell: Cell, column: Column) -> str:
    """Return ``<lowest> to <highest>`` of a cell over several seeds, nothing of any other."""
    if not isinstance(cell, Spread) or cell.seeds < 2:
        return ""
    return f"{_digits(cell.low, column)} to {_digits(cell.high, column)}"


def to_csv(table: Table) -> str:
    """Return a table as CSV: plain numbers, percent where the name says so, lowest and highest seed in columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    spreads = [any(spread_text(row[at], column) for row in table.rows) for at, column in enumerate(table.columns)]
    header: list[str] = []
    for column, wide in zip(table.columns, spreads, strict=True):
        name = f"{column.key}_percent" if column.unit == "percent" else column.key
        header += [name, f"{name}_min", f"{name}_max"] if wide else [name]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for cell, column, wide in zip(row, table.columns, spreads, strict=True):
            line += [_plain(value, column) for value in _values(cell)[: 3 if wide else 1]]
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
            shown = f"**{text(cell, column)}**" if table.is_best(number, at) else _escaped(text(cell, column))
            cells.append(f"{shown} ({spread_text(cell, column)})" if spread_text(cell, column) else shown)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def print_table(table: Table, console: Console) -> None:
    """Print an aligned table as wide as it needs to be: a number is never cut, whatever the console says of its width."""
    shown = RichTable(box=SIMPLE_HEAD)
    for column in table.columns:
        shown.add_column("\n".join(part for part in (column.group, column.title) if part), justify=_justify(column), no_wrap=True)
    for row in table.rows:
        pairs = list(zip(row, table.columns, strict=True))
        shown.add_row(*("\n".join(filter(None, (text(*pair), spread_text(*pair)))) for pair in pairs))
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
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _values(cell: Cell) -> list[Cell]:
    return [cell.mean, cell.low, cell.high] if isinstance(cell, Spread) else [cell] * 3


def _plain(value: Cell, column: Column) -> str:
    if value is None or isinstance(value, (str, int)):
        return "" if value is None else str(value)
    return f"{100 * value:.4f}" if column.unit == "percent" else f"{value:.6g}"


def _escaped(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")
