"""The report as files: one self-contained HTML page, and its tables and figures beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from nullscope.report.build import Report
from nullscope.report.figures.canvas import looks
from nullscope.report.latex import to_latex
from nullscope.report.layout import Cell, Column, spread_text, text, to_csv, to_markdown
from nullscope.report.project import is_official
from nullscope.report.tables.papers import scorecard_means

SHADE = "0, 114, 178"  # red, green, blue of a cell at 100 %; its strength follows the number
STRONGEST = 0.32  # of the shade: dark text stays readable on it


def write_report(report: Report, out: Path) -> None:
    """Write index.html, tables/*.csv, *.md and *.tex, figures/*.png and plots/*.csv into the folder ``out``."""
    for folder in ("tables", "figures"):
        (out / folder).mkdir()
    for table in report.tables:
        (out / "tables" / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
        (out / "tables" / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (out / "tables" / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    for figure in report.figures:
        (out / "figures" / f"{figure.name}.png").write_bytes(figure.png)
    for name, content in report.plots.items():
        (out / "plots").mkdir(exist_ok=True)
        (out / "plots" / name).write_text(content, encoding="utf-8")
    (out / "index.html").write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """Return the page as HTML with everything inside it: no script, no request to anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    # No line begins with a percent sign or ends with a ±, and the dotted name of a parameter may break after its dots.
    environment.filters["together"] = lambda words: re.sub(r" (?=[%±])|(?<=±) ", "\N{NO-BREAK SPACE}", words)
    environment.filters["breakable"] = lambda words: re.sub(r"\.(?=[a-z])", ".\N{ZERO WIDTH SPACE}", words)
    environment.filters["coded"] = lambda words: Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(words))))
    tables = {table.name: table for table in report.tables}
    return environment.get_template("page.html.j2").render(
        headline=report.headline,
        warnings=report.warnings,
        colours_of={name.split(" ")[0]: look.colour for name, look in looks(list(report.runs)).items()},
        counts=counts(report.runs),
        index=report.images,
        table=tables,
        papers=[table for table in report.tables if table.name.startswith("paper_")],
        scorecard_means=scorecard_means(tables["scorecard"]) if "scorecard" in tables else None,
        figure={figure.name: figure for figure in report.figures},
        paragraphs=report.paragraphs,
        definitions=report.definitions,
        text=text,
        spread_text=spread_text,
        shade=shade,
    )


def counts(runs: Mapping[str, Sequence[str]]) -> str:
    """Return how many detectors and seeds a report is of, and how many models that were not trained here."""
    official = [name for name in runs if is_official(name)]
    trained = [own for name, own in runs.items() if name not in official]
    parts = []
    if trained:
        seeds = len(trained[0])
        parts.append(f"{len(trained)} detector{'s' * (len(trained) > 1)}, {seeds} seed{'s' * (seeds > 1)} each")
    if official:
        parts.append(f"{len(official)} with the weights that {'its' if len(official) == 1 else 'their'} authors released")
    return " and ".join(parts)


def shade(cell: Cell, column: Column) -> str:
    """Return the background of a cell as CSS: the stronger, the higher its percentage; none for a cell without one."""
    mean = getattr(cell, "mean", None)
    if column.unit != "percent" or mean is None:
        return ""
    return f"background: rgba({SHADE}, {STRONGEST * max(0.0, min(1.0, mean)):.3f})"
