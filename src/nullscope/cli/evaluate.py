"""``nullscope evaluate`` and ``nullscope summary``: scores to tables."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nullscope.cli.shared import PATH, fail


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="SCORES...")
@click.option("--score", "kind", required=True, type=click.Choice(["probability", "logit"]), help="What the column score holds.")
@click.option("--threshold", type=float, help="Above it an image is called fake; default: a probability of 0.5, a logit of 0.")
@click.option(
    "--val", multiple=True, type=PATH, help="Scores on which thresholds are set, a file per file of scores, of its name."
)
@click.option("--seen", multiple=True, metavar="GENERATOR", help="Generator that the detectors were trained on; repeatable.")
@click.option("--out", type=PATH, metavar="FOLDER", help="Write the report there: index.html, tables, figures, metrics.")
def evaluate(
    files: tuple[Path, ...], kind: str, threshold: float | None, val: tuple[Path, ...], seen: tuple[str, ...], out: Path | None
) -> None:
    """Evaluate the scores of any detectors, by the protocol of the pipeline: no model, no index, no project.

    SCORES is a CSV, TSV, JSON lines or Parquet file with a row per image: source (or image_id), label (real, fake), generator,
    score; optionally subset, source_of_real, group, split (test, val). Several files are several detectors, on the same images.
    """
    from rich.console import Console

    from nullscope.evaluation.score_files import ScoreFileError, join, logit_of, read_score_file
    from nullscope.report.layout import print_table
    from nullscope.report.scores import build_scores_report, write_scores_report

    try:
        joined = join([read_score_file(path, kind) for path in files])
        others = [read_score_file(path, kind) for path in val]
        report = build_scores_report(joined, others, logit_of(threshold, kind), frozenset(seen))
        if out:
            write_scores_report(report, out)
    except (ScoreFileError, OSError) as error:
        fail(str(error))
    tables, console = {table.name: table for table in report.tables}, Console()
    for name in ("summary", "per_generator", "operating", "pairs"):
        if name in tables:
            print_table(tables[name], console)
            click.echo()
    for sentence in (*report.headline, *report.warnings):
        click.echo(sentence)
    click.echo(
        f"Report: {(out / 'index.html').resolve()}" if out else "All tables and figures, as files and as a page: --out FOLDER"
    )


@click.command()
@click.option("--metrics", default="metrics/summary.json", type=PATH, show_default=True, help="Summary of the pipeline.")
def summary(metrics: Path) -> None:
    """Show the table of the last `dvc repro`: accuracy of every detector on every generator.

    The last line says whether it is the table of the repository's last commit, where the parameters are that commit's.
    """
    from rich.console import Console

    from nullscope.committed import SUMMARY, against_commit
    from nullscope.report.tables.generators import print_summary

    try:
        results = json.loads(metrics.read_text(encoding="utf-8"))
        print_summary(results, Console())
        click.echo(f"\nReport:  {Path('reports/index.html').absolute()}\nMLflow:  {_where_runs_are()}")
        line = against_commit() if metrics == Path(SUMMARY) else None
        if line:
            click.echo(f"\n{line}")
    except OSError as error:
        raise click.UsageError(f"{metrics}: {error.strerror}; run `dvc repro` first, in the project's root") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _where_runs_are() -> str:
    """Return how to look at the runs, or why that is not possible: the table is there all the same."""
    from nullscope.tracking import TrackingError, viewer
    from nullscope.tracking.address import switched_on

    try:
        return viewer() if switched_on() else "off"
    except TrackingError as error:
        return f"cannot be used: {error}"
