"""``nullscope predict``: how generated does each image look?"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nullscope.cli.shared import FOLDER, judging_options
from nullscope.core import streams

if TYPE_CHECKING:
    from nullscope.decision import Decision
    from nullscope.verdicts import Verdict

COLUMNS = ("source", "logit", "score", "answer", "fake", "probability", "claims", "caption", "refused")  # of CSV
WIDE = 100_000  # columns: a path is never cut, in a pipe or in a terminal, which wraps it


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", required=True, type=FOLDER, help="Folder of a trained detector, such as models/ns_net-0.")
@click.option(
    "--captions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns source and caption, for a detector that needs captions; it writes those that are missing.",
)
@judging_options
@click.option(
    "--json", "style", flag_value="json", help="One JSON object a line: source, logit, score, answer, fake, probability, claims."
)
@click.option("--csv", "style", flag_value="csv", help="Comma-separated: the same, and refused.")
def predict(
    images: tuple[str, ...], model: Path, captions: Path | None, fpr: float | None, no_band: bool, anyway: bool, style: str | None
) -> None:
    """Score images: how generated does each of them look?

    IMAGE is a file, a folder or archive (all files below it), a member of one (ARCHIVE::MEMBER), or - for a list of them on
    standard input, one a line or with NUL between them.

    \b
    answer  generated, real, or not sure
    score   from 0 (photograph) to 1 (generated)
    logit   the same before the sigmoid

    The threshold is the one that promises 5 % false alarms (--fpr: another rate) on photographs like those of the model's
    validation; the last line says how many these were, and what to expect on others. `not sure` are images that lie between that
    threshold and the one that finds as large a share of the validation's fakes. Your photographs may be others: `nullscope
    calibrate` sets the threshold on them. A model without a validation calls a logit above 0 generated, and promises nothing.

    What a file says of its own origin (C2PA, XMP, EXIF, PNG texts) is listed as its claim. Anybody can write or remove it: no
    score depends on it.

    A score is no probability. `probability` (JSON, CSV) is one, where half of the images are generated and all are like those of
    the validation. A detector that was trained on the embedded
    world has seen nothing but rendered scenes: its scores are no verdicts, unless you say --anyway.

    The exit status is 0 when all images were scored, 1 when some were refused (each is named with the reason), 2 when nothing
    could be done, 3 when results could not be written.

    \b
    Examples:
      nullscope predict photo.jpg --model models/ns_net-0
      nullscope predict holiday/ --model models/ns_net-0 --csv > holiday.csv
      nullscope predict photo.jpg --model models/ns_net-0 --fpr 0.01 --no-band
      find . -name '*.png' | nullscope predict - --model models/ns_net-0 --json
    """
    from nullscope.core import ranks
    from nullscope.model_facts import trained_on
    from nullscope.prediction import Judge, expand

    ignored: Counter[str] = Counter()
    try:
        found = list(expand(sources(images), ignored))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    files = [item for item in found if isinstance(item, str)]
    try:
        given = _read_captions(captions) if captions else {}
        judge = Judge(model, workers=ranks.workers(), anyway=anyway, fpr=fpr, band=not no_band)
        verdicts = judge.predict_many(files, given)
        if given and given.keys().isdisjoint(files):
            raise ValueError(
                f"{captions}: none of its {len(given)} captions is of an image that was asked for; the column source must hold "
                f"the names as they are given to the command; found {min(given)!r}"
            )
        shown = _progress((next(verdicts) if isinstance(item, str) else item for item in found), len(found), style)
        refused = {"json": _print_json, "csv": _print_csv, None: _print_table}[style](shown)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"{_counted(len(found) - refused, refused, ignored)}; {model}: {trained_on(judge.facts)}", err=True)
    if not judge.judges:
        click.echo(
            "no verdicts: this detector has never seen a photograph, nor a picture like yours (--anyway gives them)", err=True
        )
    else:
        click.echo(explained(judge.decision), err=True)
    sys.exit(1 if refused else 0)


def explained(decision: Decision) -> str:
    """Return what the answers of a decision mean."""
    if decision.promise is None:
        return "threshold 0, that of training: this model has no validation that a threshold could promise anything by"
    own = decision.promise
    expected = f"{100 * own.low:.1f} to {100 * own.high:.1f} % on others like its {own.images} validation reals"
    between = f"; not sure: from {decision.band[0]:+.2f} to {decision.band[1]:+.2f}" if decision.band else ""
    return f"threshold {own.threshold:+.2f}, for {100 * own.rate:g} % false alarms ({expected}){between}"


def _read_captions(path: Path) -> dict[str, str]:
    """Return the captions of a CSV by the names of their images. Raises `ValueError` if it is no such file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ["none"]
            if any(names.count(name) != 1 for name in ("source", "caption")):
                raise ValueError(f"{path}: expected the columns source and caption, found {', '.join(names)}")
            rows = [(row["source"], (row["caption"] or "").strip()) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not CSV in UTF-8: {error}") from None
    empty = [source for source, caption in rows if not caption]
    if empty:
        raise ValueError(f"{path}: the caption of {empty[0]} is empty; leave the line out, and one is written")
    return dict(rows)


def sources(images: tuple[str, ...]) -> Iterator[str]:
    """Yield what the arguments name; ``-`` stands for the lines of standard input."""
    for image in images:
        if image == "-":
            yield from streams.lines(sys.stdin)
        else:
            yield image


def _counted(scored: int, refused: int, ignored: Counter[str]) -> str:
    """Return how many files there were of each kind."""
    reasons = ", ".join(f"{files} {why.replace('_', ' ')}" for why, files in sorted(ignored.items()))
    return f"{scored} scored, {refused} refused, {ignored.total()} ignored" + (f" ({reasons})" if reasons else "")


def _progress(verdicts: Iterable[Verdict], total: int, style: str | None) -> Iterable[Verdict]:
    from tqdm import tqdm

    # Lines that are printed as they come and a bar would write over each other on a terminal.
    both_on_screen = style is not None and sys.stdout.isatty()
    return tqdm(verdicts, total=total, unit="image", desc="predict", delay=2, leave=False, disable=both_on_screen)


def _print_json(verdicts: Iterable[Verdict]) -> int:
    refused = 0
    for verdict in verdicts:
        click.echo(json.dumps(verdict.as_dict(), ensure_ascii=not streams.holds_everything(sys.stdout), allow_nan=False))
        refused += verdict.refused is not None
    return refused


def _print_csv(verdicts: Iterable[Verdict]) -> int:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    refused = 0
    for verdict in verdicts:
        row = verdict.as_dict()
        writer.writerow(row | ({"claims": "; ".join(verdict.claims)} if "claims" in row else {}))
        refused += verdict.refused is not None
    return refused


def _print_table(verdicts: Iterable[Verdict]) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, refused = Table("answer", "score", "logit", "source", box=None, pad_edge=False), []
    claiming: list[Verdict] = []
    for column in table.columns[1:3]:
        column.justify = "right"
    for verdict in verdicts:
        if verdict.refused is not None:
            refused.append(verdict)
        else:
            claiming += [verdict] * bool(verdict.claims)
            table.add_row(
                verdict.answer or "-", f"{verdict.score:.3f}", f"{verdict.logit:+.2f}", Text(streams.printable(verdict.source))
            )
    if table.row_count:
        Console(width=WIDE).print(table)
    for verdict in claiming:
        click.echo(streams.printable(f"claim of the file {verdict.source}: {'; '.join(verdict.claims)}"), err=True)
    for verdict in refused:
        click.echo(streams.printable(f"refused: {verdict.source}: {verdict.refused}"), err=True)
    return len(refused)
