"""The tables as LaTeX: every row fits, nothing is read as a command that is not meant as one, and a compiler takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nullscope.report.latex import SPECIAL, escaped, to_latex
from nullscope.report.layout import Column, Spread, Table

NASTY = r"[a] & 50 % $x$ #1 {b} ~c ^d \e_f ± † <g> | --h ---"
COLUMNS = [
    Column("detector", "Detector & co_", "text"),
    Column("r_acc", "50 %", best="max"),
    Column("seen", "seen", group="AUROC #1", best="max"),
    Column("unseen", "unseen", "points", group="AUROC #1", against=(0, 0)),
    Column("count", "n", "count"),
    Column("p", "p", "text", group="last"),
]
ROWS = [
    [NASTY, Spread(0.5, 0.4, 0.6, 3, "interval"), Spread(0.8, 0.7, 0.9, 2, "range"), None, 1234, "< 0.001"],
    ["b", Spread(0.4, 0.4, 0.4, 1), Spread(0.9, 0.9, 0.9, 1), Spread(-0.02, -0.03, -0.01, 3, "interval"), 5, ""],
]
TABLE = Table("nasty", "Title_1", f"Note: {NASTY}", COLUMNS, ROWS)


def body(latex: str) -> list[list[str]]:
    """The header and the rows, cell by cell."""
    rows = re.findall(r"^(.*) \\\\$", latex, re.MULTILINE)
    return [re.split(r"(?<!\\) & ", row) for row in rows if r"\multicolumn" not in row]


def check(latex: str) -> None:
    """Assert what holds of every table."""
    alignment = re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex)[1]
    assert {len(row) for row in body(latex)} == {len(alignment)}
    plain = re.sub(r"\\[{}]", "", latex)
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count(r"\begin{") == plain.count(r"\end{") == 2
    assert not re.search(r"\\\\\s*[\[*]", latex), "what follows a line break is not its argument"
    spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", latex)]
    rules = [tuple(map(int, ends)) for ends in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", latex)]
    if spans:
        starts = [1 + sum(spans[:at]) for at in range(len(spans))]
        assert sum(spans) == len(alignment)
        assert set(rules) <= {(first, first + span - 1) for first, span in zip(starts, spans, strict=True)}
        assert len(rules) == len(re.findall(r"\\multicolumn\{\d+\}\{c\}\{[^}]", latex)), "a rule below every named group"


def test_every_row_has_as_many_cells_as_the_header():
    check(to_latex(TABLE))
    header, first, second = body(to_latex(TABLE))
    assert header == [r"Detector \& co\_", r"50 \%", "seen", "unseen", "n", "p"]
    assert first[1:] == [r"\textbf{50.0} (40.0 to 60.0)", "80.0 (70.0 to 90.0)", "n/a", "1,234", "$<$ 0.001"]
    assert second == ["b", "40.0", r"\textbf{90.0}", r"-2.0* $\pm$ 1.0", "5", ""]


def test_groups_span_their_columns_and_rules_lie_below_the_named_ones():
    groups = re.search(r"(\\multicolumn.*)\n(\\cmidrule.*)", to_latex(TABLE))
    assert (
        groups[1] == r"\multicolumn{2}{c}{} & \multicolumn{2}{c}{AUROC \#1} & \multicolumn{1}{c}{} & \multicolumn{1}{c}{last} \\"
    )
    assert groups[2] == r"\cmidrule(lr){3-4}\cmidrule(lr){6-6}"
    assert r"\multicolumn" not in to_latex(Table("t", "T", "N.", COLUMNS[:2], [row[:2] for row in ROWS]))


def test_special_characters_are_escaped_once():
    assert escaped("& % $ # _ { }") == r"\& \% \$ \# \_ \{ \}"
    assert escaped("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escaped("±†<>|[") == r"$\pm$\dag{}$<$$>$\textbar{}{[}"
    assert escaped("--reverse ---") == r"-{}-reverse -{}-{}-", "no dashes"
    assert escaped("plain text, 50.0 (a/b)") == "plain text, 50.0 (a/b)"


def test_nothing_special_is_left(project, papers_project):
    found = [file for root in (project[0], papers_project) for file in sorted((root / "reports/tables").glob("*.tex"))]
    assert len(found) > 40
    for file in found:
        latex = file.read_text(encoding="utf-8")
        check(latex)
        cells = [cell for row in body(latex) for cell in row] + re.findall(r"^\\caption\{(.*)\}$", latex, re.MULTILINE)
        for cell in cells:
            commands = "|".join(re.escape(command) for command in (*SPECIAL.values(), "-{}-") if command.strip())
            bare = re.sub(rf"\\textbf\{{(.*?)\}}(?= |$)|{commands}", r"\1", cell)
            assert not re.search(r"[&%$#_{}~^\\±†<>|]|--", bare), (file.name, cell)
            assert bare.isascii(), (file.name, cell)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the PATH")
def test_it_compiles(tmp_path, papers_project):
    (tmp_path / "nasty.tex").write_text(to_latex(TABLE), encoding="utf-8")
    names = ["nasty", *(str(file) for file in sorted((papers_project / "reports/tables").glob("*.tex")))]
    inputs = "\n".join(rf"\input{{{Path(name).with_suffix('.tex')}}}\clearpage" for name in names)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
