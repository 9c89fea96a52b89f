"""report: params, metrics, scores, histories, index and shards -> metrics/summary.json, reports/.   usage: report.py"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nullscope.files import replacing_directory, write_json
from nullscope.ranks import launch
from nullscope.report.inputs import read_inputs
from nullscope.report.page import write_report
from nullscope.report.tables import print_summary

REPORTS, SUMMARY = Path("reports"), Path("metrics/summary.json")


def main() -> None:
    inputs = read_inputs(Path())
    with replacing_directory(REPORTS) as out:
        write_report(inputs, out)
    write_json(SUMMARY, inputs.summary)
    print_summary(inputs.summary, Console())
    print(f"report: {', '.join(inputs.summary)} -> {REPORTS / 'index.html'}, {REPORTS}/tables, {REPORTS}/figures, {SUMMARY}")


if __name__ == "__main__":
    launch(main, alone=True)
