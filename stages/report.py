"""report: the outputs of all stages before it -> metrics/summary.json, metrics/compared.json, reports/.   usage: report.py

`metrics/compared.json` is what DVC calls a metric: the few numbers per detector that `dvc metrics diff` and `dvc exp show` print.

With one BLAS thread: a sum that threads share is rounded differently, and t-SNE would draw another map on another machine.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from nullscope.committed import against_commit
from nullscope.core.files import replacing_directory, write_json
from nullscope.core.ranks import launch
from nullscope.evaluation.summary import compared
from nullscope.locked import refuse_damaged
from nullscope.report.build import build_report
from nullscope.report.page import write_report
from nullscope.report.tables.generators import print_summary

# What numbers and figures are made from, hashed again. It is small next to the shards, from which a few mosaics are shown.
INPUTS = ("data/evaluated", "data/features", "data/text", "data/captions.parquet", "data/index.parquet", "data/rejects.csv")
INPUTS += ("scores", "models", "metrics/audit.json", "metrics/index.json")
REPORTS, SUMMARY, COMPARED = Path("reports"), Path("metrics/summary.json"), Path("metrics/compared.json")


def main() -> None:
    refuse_damaged(*INPUTS)
    with threadpool_limits(1):
        report = build_report(Path())
    with replacing_directory(REPORTS) as out:
        write_report(report, out)
    write_json(SUMMARY, report.summary)
    write_json(COMPARED, compared(report.summary))
    print_summary(report.summary, Console())
    print(f"report: {', '.join(report.runs)} -> {REPORTS / 'index.html'}, {REPORTS}/tables, {REPORTS}/figures, {SUMMARY}")
    if line := against_commit():
        print(line)


if __name__ == "__main__":
    launch(main, alone=True)
