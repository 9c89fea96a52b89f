"""The report, assembled: every table and figure with what it is made of, in the order of the page.

To follow a number back: its table is named here, with the function that makes it and the values that this takes; these come from
`project`, which reads files, and from `nullscope.evaluation`, which computes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nullscope.evaluation.curves import curves
from nullscope.evaluation.scores import Scores, read_clean_scores, seen_subsets
from nullscope.evaluation.summary import Metrics
from nullscope.report import insight
from nullscope.report.definitions import definitions
from nullscope.report.figures.canvas import Figure, looks, style
from nullscope.report.figures.costs import cost_figure
from nullscope.report.figures.curves import calibration_figure, logits_figure, roc_figure
from nullscope.report.figures.examples import examples_figure, read_examples
from nullscope.report.figures.forest import comparison_figure, shortcut_figure
from nullscope.report.figures.generators import generators_figure
from nullscope.report.figures.maps import features_figure, semantics_figure
from nullscope.report.figures.robustness import robustness_figure
from nullscope.report.figures.training import training_figure, validation_figure
from nullscope.report.headline import differences, headline
from nullscope.report.layout import Table
from nullscope.report.plots import plot_files
from nullscope.report.project import (
    DAGGER,
    Project,
    is_official,
    read_counts,
    read_histories,
    read_json,
    read_models,
    read_project,
    read_releases,
    read_resamples,
    read_summary,
)
from nullscope.report.tables.comparison import comparison_table
from nullscope.report.tables.dataset import index_table, read_refused, refused_table, unexpected_table
from nullscope.report.tables.file_bias import file_bias_tables, warnings
from nullscope.report.tables.generators import per_generator_differences, per_generator_table, runs_table
from nullscope.report.tables.insight import (
    captions_paragraph,
    captions_table,
    colours_paragraph,
    semantics_table,
    shortcut_table,
)
from nullscope.report.tables.leaderboard import leaderboard_table, plug_and_play_tables, read_sizes
from nullscope.report.tables.operating import degraded_operating_table, operating_table, sources_table
from nullscope.report.tables.pairs import pairs_table
from nullscope.report.tables.papers import paper_tables, scorecard_table
from nullscope.report.tables.provenance import MEANING, data_table, licence_table, marked, origins_table, read_provenance
from nullscope.report.tables.releases import releases_table
from nullscope.report.tables.robustness import robustness_tables
from nullscope.report.tables.summary import averages_table, forecast_table, prevalence_table, summary_table
from nullscope.report.tables.training import losses_table, parameters_table


@dataclass(frozen=True)
class Report:
    """What people look at."""

    runs: dict[str, list[str]]  # detector -> the names of its runs
    summary: dict[str, Metrics]  # what becomes metrics/summary.json
    images: dict[str, int]  # counts of metrics/index.json
    headline: list[str]
    warnings: list[str]
    paragraphs: dict[str, str]  # name of a table -> the paragraph above it
    definitions: dict[str, str]
    tables: list[Table]
    figures: list[Figure]
    plots: dict[str, str]  # name of a file -> its text, for `dvc plots`


def build_report(root: Path) -> Report:
    """Return the report of the project under ``root``. Raises `ValueError` naming the first file that is missing or wrong.

    The scores of one detector are in memory at a time, of two where detectors are compared two by two.
    """
    # All files that are quick to read come first, so that an error does not come after a minute of work.
    project = read_project(root)
    summary, models, histories = read_summary(project), read_models(project), read_histories(project)
    counts, provenance, resamples = read_counts(project), read_provenance(project), read_resamples(project)
    images, file_bias = read_json(root / "metrics/index.json", "index"), read_json(root / "metrics/audit.json", "audit")
    refused, examples = read_refused(root / "data/rejects.csv"), read_examples(root / "data/shards")
    seen, look, fixed = seen_subsets(counts), looks(list(project.runs)), frozenset(filter(is_official, project.runs))

    drawn = {name: curves([_scores(project, run, seen) for run in runs]) for name, runs in project.runs.items()}
    shortcut, captions = insight.read_shortcut(project), insight.read_captions_alone(project)
    semantics, maps = insight.read_semantics(project, models, seen), insight.read_feature_maps(project, seen)
    methods = {name: model["params"].get("method", name) for name, model in models.items()}
    tables = [
        summary_table(summary),
        leaderboard_table(summary, read_sizes(project), resamples, fixed),
        comparison_table(summary, models, resamples, fixed),
        *plug_and_play_tables(summary, resamples),
        averages_table(summary, drawn),
        forecast_table(summary),
        releases_table(read_releases(project), summary, resamples, fixed),
        prevalence_table(summary),
        operating_table(summary),
        degraded_operating_table(summary),
        sources_table(summary),
        pairs_table(resamples, fixed),
        per_generator_differences(summary, resamples, fixed),
        per_generator_table(summary, "f_acc"),
        per_generator_table(summary, "ap"),
        runs_table(summary),
        scorecard_table(provenance.dataset, summary, methods),
        *paper_tables(provenance.dataset, summary),
        *robustness_tables(summary),
        shortcut_table(shortcut) if shortcut else None,
        semantics_table(semantics) if semantics else None,
        losses_table(histories),
        index_table(counts),
        unexpected_table(images.get("unexpected", {})),
        *file_bias_tables(file_bias),
        captions_table(captions) if captions else None,
        refused_table(refused),
        origins_table(summary, models, provenance),
        data_table(provenance),
        licence_table(provenance.dataset, methods.values()),
        parameters_table(models),
    ]
    with style():
        figures = [
            comparison_figure(summary, look, differences(resamples, fixed)),
            robustness_figure(summary, look),
            features_figure(maps, look),
            shortcut_figure(shortcut, look) if shortcut else None,
            semantics_figure(semantics) if semantics else None,
            generators_figure(summary, look),
            cost_figure(summary, look),
            roc_figure(drawn, look),
            logits_figure(drawn, look),
            calibration_figure(drawn, summary, look),
            training_figure(histories, look),
            validation_figure(histories, look),
            examples_figure(examples, next(iter(models.values()))["patches"]["grid"]),
        ]
    return Report(
        runs=project.runs,
        summary={run: summary[shown] for shown, run in project.all_runs.items()},
        images=images,
        headline=headline(summary, shortcut, resamples, fixed),
        warnings=warnings(file_bias),
        paragraphs={
            "shortcut": colours_paragraph(shortcut) if shortcut else "",
            "captions_alone": captions_paragraph(captions) if captions else "",
        },
        definitions=definitions(captions=bool(captions), semantics=bool(semantics), shortcut=bool(shortcut)),
        tables=[marked(table) for table in tables if table],
        figures=[_explained(figure) for figure in figures if figure],
        plots=plot_files(summary, drawn, histories),
    )


def _explained(figure: Figure) -> Figure:
    """Return a figure with the meaning of the mark in its caption, if it shows official weights."""
    return replace(figure, caption=f"{figure.caption} {MEANING}") if DAGGER in figure.alt else figure


def _scores(project: Project, run: str, seen: frozenset[str]) -> Scores:
    return read_clean_scores(project.root / f"scores/{run}.parquet", seen)
