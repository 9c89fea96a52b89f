"""report: all that the stages before it leave -> metrics/summary.json, reports/.   usage: report.py

With one BLAS thread: a sum that is split among threads is rounded otherwise, and t-SNE would draw another map on another machine.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from nullscope.core.files import replacing_directory, write_json
from nullscope.core.ranks import launch
from nullscope.report.inputs import read_inputs
from nullscope.report.page import write_report
from nullscope.report.tables import print_summary

REPORTS, SUMMARY = Path("reports"), Path("metrics/summary.json")


def main() -> None:
    with threadpool_limits(1):
        inputs = read_inputs(Path())
        with replacing_directory(REPORTS) as out:
            write_report(inputs, out)
    write_json(SUMMARY, inputs.summary)
    print_summary(inputs.summary, Console())
    print(f"report: {', '.join(inputs.curves)} -> {REPORTS / 'index.html'}, {REPORTS}/tables, {REPORTS}/figures, {SUMMARY}")


if __name__ == "__main__":
    launch(main, alone=True)
