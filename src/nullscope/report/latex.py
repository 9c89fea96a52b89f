"""A table as LaTeX, to be included in a paper: booktabs' rules, no other package. Numbers are rounded as on the page."""

from __future__ import annotations

import re

from nullscope.report.layout import Table, inline_spread, text

# Every character is looked up once, so that a replacement is not escaped again. In TeX's own font encoding < > | are other
# characters, and TeX would take a bracket at the start of a row for an argument of the line break before it.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "†": r"\dag{}",
    "\n": " ",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "[": "{[}",
    "`": "",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_latex(table: Table) -> str:
    r"""Return a table as a ``table`` environment with its title and note as caption and ``tab:<name>`` as label.

    Include it with ``\usepackage{booktabs}`` and ``\input{<name>.tex}``.
    """
    alignment = "".join("l" if column.unit == "text" else "r" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.title)}. {escaped(table.note)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        *_groups(table),
        " & ".join(escaped(column.title) for column in table.columns) + r" \\",
        r"\midrule",
        *(_row(table, number) for number in range(len(table.rows))),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(words: str) -> str:
    """Return a text in which LaTeX finds no command: its special characters are escaped."""
    return re.sub("-(?=-)", "-{}", "".join(SPECIAL.get(character, character) for character in words))  # two hyphens: no dash


def _groups(table: Table) -> list[str]:
    """Return the line of headings over columns and the rules below them, if there are any."""
    if not any(group for group, _ in table.groups):
        return []
    cells, rules, first = [], [], 1
    for group, span in table.groups:
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escaped(group)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _row(table: Table, number: int) -> str:
    cells = []
    for at, (cell, column) in enumerate(zip(table.rows[number], table.columns, strict=True)):
        shown = escaped(text(cell, column))
        shown = rf"\textbf{{{shown}}}" if table.is_best(number, at) else shown
        cells.append(" ".join(filter(None, (shown, escaped(inline_spread(cell, column))))))
    return " & ".join(cells) + r" \\"
