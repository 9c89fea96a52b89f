"""The report on files of scores: the tables and figures of a run of the pipeline, without a model, an index or a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from nullscope.core.contracts import FAKE
from nullscope.core.files import replacing_directory, write_json
from nullscope.evaluation.curves import curves
from nullscope.evaluation.metrics import THRESHOLD
from nullscope.evaluation.protocol import NONE_SEEN, evaluate_with_resamples
from nullscope.evaluation.score_files import Joined, ScoreFile, ScoreFileError
from nullscope.evaluation.scores import Scores
from nullscope.report.build import Report
from nullscope.report.definitions import definitions
from nullscope.report.figures.canvas import looks, style
from nullscope.report.figures.costs import cost_figure
from nullscope.report.figures.curves import calibration_figure, logits_figure, roc_figure
from nullscope.report.figures.forest import comparison_figure
from nullscope.report.figures.generators import generators_figure
from nullscope.report.headline import differences, headline
from nullscope.report.page import write_report
from nullscope.report.tables.generators import per_generator_differences, per_generator_table, runs_table
from nullscope.report.tables.models import models_table
from nullscope.report.tables.operating import operating_table, sources_table
from nullscope.report.tables.pairs import pairs_table
from nullscope.report.tables.summary import averages_table, forecast_table, prevalence_table, summary_table

PARTS = ("index.html", "tables", "figures", "metrics")  # of a folder with a report
UNKNOWN = "Which generators a detector was trained on is not known here (--seen): all of them count as unseen."


def build_scores_report(
    joined: Joined, val: Sequence[ScoreFile] = (), threshold: float = THRESHOLD, seen: frozenset[str] = NONE_SEEN
) -> Report:
    """Return the report on the test images of some files of scores.

    ``val``: scores of the same detectors on the images on which thresholds are set, if they are not in the files themselves;
    ``threshold``: the logit above which an image is called fake; ``seen``: the subsets of generators that all of them were
    trained on. Raises `ScoreFileError` where reals or fakes are missing.
    """
    tests, vals = _checked_tests(joined, seen), _checked_vals(joined, val)
    with threadpool_limits(1):
        results = {name: evaluate_with_resamples(rows, seen, threshold=threshold, val=vals[name]) for name, rows in tests.items()}
        summary = {f"{name}-0": metrics for name, (metrics, _) in results.items()}
        tables, fixed = {name: [own] for name, (_, own) in results.items()}, frozenset(results)
        scores = {name: _scores(rows, threshold, seen) for name, rows in tests.items()}
        drawn = {name: curves([own]) for name, own in scores.items()}
        found = [
            summary_table(summary),
            averages_table(summary, drawn),
            forecast_table(summary),
            prevalence_table(summary),
            operating_table(summary),
            sources_table(summary),
            pairs_table(tables, fixed),
            models_table(list(scores), scores.__getitem__),
            per_generator_differences(summary, tables, fixed),
            per_generator_table(summary, "f_acc"),
            per_generator_table(summary, "ap"),
            runs_table(summary),
        ]
        # Its probabilities are those of logit 0, whatever the threshold.
        calibrated = drawn
        if threshold != THRESHOLD:
            calibrated = {name: curves([_scores(rows, THRESHOLD, seen)]) for name, rows in tests.items()}
        look = looks(list(results))
        with style():
            figures = [
                comparison_figure(summary, look, differences(tables, fixed)),
                generators_figure(summary, look),
                cost_figure(summary, look),
                roc_figure(drawn, look),
                logits_figure(drawn, look),
                calibration_figure(calibrated, summary, look),
            ]
    return Report(
        runs={name: [f"{name}-0"] for name in results},
        summary=summary,
        images={"images": len(next(iter(tests.values())))},
        headline=headline(summary, None, tables, fixed),
        warnings=[*_left_out(joined.left_out), *([] if seen else [UNKNOWN])],
        paragraphs={},
        definitions=definitions(captions=False, semantics=False, shortcut=False),
        tables=[table for table in found if table],
        figures=[figure for figure in figures if figure],
        plots={},
    )


def write_scores_report(report: Report, out: Path) -> None:
    """Write the page, its tables and figures and ``metrics/<name>.json`` into the folder ``out``, whole or not at all.

    An earlier report there is replaced. Raises `ScoreFileError` where anything else is in the way.
    """
    others = sorted(path.name for path in out.iterdir() if path.name not in PARTS) if out.is_dir() else []
    if others or (out.exists() and not out.is_dir()):
        found = f"{len(others)} other files ({others[0]}, ..)" if others else "a file"
        raise ScoreFileError(f"--out {out}: expected a new folder or one with an earlier report, found {found}")
    with replacing_directory(out) as folder:
        write_report(report, folder)
        for run, metrics in report.summary.items():
            write_json(folder / "metrics" / f"{run.removesuffix('-0')}.json", metrics)


def _checked_tests(joined: Joined, seen: frozenset[str]) -> dict[str, pa.Table]:
    """Return the test images of every detector. Raises `ScoreFileError` where reals, fakes or a seen generator are missing."""
    tests = {own.name: own.of_split("test") for own in joined.files}
    for name, rows in tests.items():
        fakes = set(rows.filter(pc.equal(rows["label"], FAKE))["subset"].to_pylist())
        if not fakes or pc.all(pc.equal(rows["label"], FAKE)).as_py():
            raise ScoreFileError(f"{name}: expected reals and fakes among its test images, found one kind or none")
        if unknown := sorted(seen - fakes):
            known = ", ".join(sorted(fakes))
            raise ScoreFileError(f"--seen {', '.join(unknown)}: expected generators of the test images: {known}")
    return tests


def _checked_vals(joined: Joined, val: Sequence[ScoreFile]) -> dict[str, pa.Table]:
    """Return the images on which each detector's thresholds are set. Raises `ScoreFileError` on those of another detector."""
    vals = {own.name: own.of_split("val") for own in joined.files}
    if strangers := [own.name for own in val if own.name not in vals]:
        raise ScoreFileError(f"--val {', '.join(strangers)}: expected the name of a file of scores: {', '.join(vals)}")
    return vals | {own.name: own.rows for own in val}


def _scores(rows: pa.Table, threshold: float, seen: frozenset[str]) -> Scores:
    is_fake_N, is_seen_N = rows["label"].to_numpy() == FAKE, pc.is_in(rows["subset"], pa.array(sorted(seen), pa.string()))
    return Scores(is_fake_N, is_seen_N.to_numpy(), rows["logit"].to_numpy() - threshold)


def _left_out(left_out: Mapping[str, int]) -> list[str]:
    """Return a sentence where a file has images that others have not."""
    each = [f"{count:,} of {name}" for name, count in left_out.items() if count]
    return [f"Compared on the images that all have scored; left out: {', '.join(each)}."] if each else []
