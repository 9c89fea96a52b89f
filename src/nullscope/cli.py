"""The command ``nullscope``: get data sets, judge images, look at the results, upload shards, export a tower."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from nullscope.core import streams

if TYPE_CHECKING:
    from nullscope.prediction import Verdict

PATH, FOLDER = click.Path(path_type=Path), click.Path(exists=True, file_okay=False, path_type=Path)
WIDE = 100_000  # columns: a path is never cut, in a pipe or in a terminal, which wraps it

# Each command imports what it needs: torch takes seconds, and `--help` should not.


def run() -> None:
    """Run the command; the script ``nullscope`` begins here."""
    with streams.guarded():
        main()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nullscope")
def main() -> None:
    """Detectors of AI-generated images on CLIP features.

    Train and compare them with `dvc repro` in a checkout of the project; judge images with `nullscope predict`.
    """


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", required=True, type=FOLDER, help="Folder of a trained detector, such as models/ns_net-0.")
@click.option(
    "--captions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns source and caption, for a detector that needs captions; it writes those that are missing.",
)
@click.option("--anyway", is_flag=True, help="Give verdicts also with a detector that has seen nothing but rendered scenes.")
@click.option("--json", "style", flag_value="json", help="One JSON object a line: source, logit, score, fake (or refused).")
@click.option("--csv", "style", flag_value="csv", help="Comma-separated: source, logit, score, fake, refused.")
def predict(images: tuple[str, ...], model: Path, captions: Path | None, anyway: bool, style: str | None) -> None:
    """Score images: how generated does each of them look?

    IMAGE is a file, a folder or archive (all files below it), a member of one (ARCHIVE::MEMBER), or - for a list of them on
    standard input, one a line or with NUL between them.

    \b
    score  from 0 (photograph) to 1 (generated); above 0.5 counts as generated
    logit  the same before the sigmoid: above 0 counts as generated

    A score is no probability unless the detector was calibrated on images like yours. A detector that was trained on the embedded
    world has seen nothing but rendered scenes: its scores are no verdicts, unless you say --anyway.

    The exit status is 0 when all images were scored, 1 when some were refused (each is named with the reason), 2 when nothing
    could be done, 3 when results could not be written.

    \b
    Examples:
      nullscope predict photo.jpg --model models/ns_net-0
      nullscope predict holiday/ --model models/ns_net-0 --csv > holiday.csv
      find . -name '*.png' | nullscope predict - --model models/ns_net-0 --json
    """
    from nullscope.core import ranks
    from nullscope.model_facts import trained_on
    from nullscope.prediction import Judge, expand

    ignored: Counter[str] = Counter()
    try:
        found = list(expand(_sources(images), ignored))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    files = [item for item in found if isinstance(item, str)]
    try:
        given = _read_captions(captions) if captions else {}
        judge = Judge(model, workers=ranks.workers(), anyway=anyway)
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
    sys.exit(1 if refused else 0)


@main.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="SCORES...")
@click.option("--score", "kind", required=True, type=click.Choice(["probability", "logit"]), help="What the column score holds.")
@click.option("--threshold", type=float, help="Above it an image is called fake; default: a probability of 0.5, a logit of 0.")
@click.option(
    "--val", multiple=True, type=PATH, help="Scores on which thresholds are set, a file per file of scores, of its name."
)
@click.option("--out", type=PATH, metavar="FOLDER", help="Write the report there: index.html, tables, figures, metrics.")
def evaluate(files: tuple[Path, ...], kind: str, threshold: float | None, val: tuple[Path, ...], out: Path | None) -> None:
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
        report = build_scores_report(joined, [read_score_file(path, kind) for path in val], logit_of(threshold, kind))
        if out:
            write_scores_report(report, out)
    except (ScoreFileError, OSError) as error:
        _fail(str(error))
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


@main.command()
@click.option("--metrics", default="metrics/summary.json", type=PATH, show_default=True, help="Summary of the pipeline.")
def summary(metrics: Path) -> None:
    """Show the table of the last `dvc repro`: accuracy of every detector on every generator."""
    from rich.console import Console

    from nullscope.report.tables.generators import print_summary
    from nullscope.tracking import viewer

    try:
        results = json.loads(metrics.read_text(encoding="utf-8"))
        print_summary(results, Console())
        click.echo(f"\nReport:  {Path('reports/index.html').resolve()}\nMLflow:  {viewer()}")
    except OSError as error:
        raise click.UsageError(f"{metrics}: {error.strerror}; run `dvc repro` first, in the project's root") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@main.command()
@click.argument("dataset", required=False)
@click.option("--to", type=PATH, metavar="FOLDER", help="Where to; default: a folder of the data set's name beside this one.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these files, such as 'test/*'; repeatable.")
@click.option("--revision", help="Another commit, tag or branch of the hub's repository than the one that is pinned.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, how much of it is there and what room there is.")
@click.option("--verify", is_flag=True, help="Read every file again, also those that are unchanged since they were verified.")
@click.option("--list", "list_only", is_flag=True, help="The table of all data sets: from where, size, licence.")
@click.option("--weights", metavar="DETECTOR", help="Released weights instead of a data set, such as npr; goes to weights/.")
def fetch(
    dataset: str | None,
    to: Path | None,
    only: tuple[str, ...],
    revision: str | None,
    dry_run: bool,
    verify: bool,
    list_only: bool,
    weights: str | None,
) -> None:
    """Get a benchmark, or the released weights of a detector: fetch it, or say how it is got by hand.

    Every file is verified against the checksums of its repository, where that has any, and noted in fetched.json beside the data.
    The same command continues what was interrupted, fetches what is missing and leaves what is there. Without DATASET it shows
    the table of all.

    \b
    HF_TOKEN     a token of the Hugging Face hub, for data sets that ask for an account
    HF_ENDPOINT  another address of the hub, such as a mirror

    The exit status is 0 when everything is there or when a page says how to get it, 2 when something went wrong.

    \b
    Examples:
      nullscope fetch --list
      nullscope fetch aigibench --dry-run
      nullscope fetch aigibench --to /data/AIGIBench --only 'test/*'
      nullscope fetch aigibench --to /data/AIGIBench
      nullscope fetch genimage
      nullscope fetch --weights npr
    """
    from nullscope.fetching import request
    from nullscope.fetching.sources import FetchError
    from nullscope.fetching.weights import fetch_weights

    try:
        if weights is not None:
            if dataset is not None or only or revision or verify or list_only:
                raise FetchError("--weights names what to fetch: leave DATASET and all options but --to and --dry-run out")
            fetch_weights(weights, to or Path("weights"), dry_run=dry_run)
        elif list_only or dataset is None:
            request.list_sources()
        else:
            request.run(request.Request(dataset, to, only, revision, dry_run, verify))
    except FetchError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted: the files that were complete are verified and stay; run the same command again, it continues there")


@main.command("upload-shards")
@click.argument("place", metavar="URL")
@click.option("--shards", default="data/shards", type=PATH, show_default=True, help="Folder of the stage `shard`.")
def upload_shards(place: str, shards: Path) -> None:
    """Bring the shards to URL, such as s3://bucket/prefix, where NULLSCOPE_SHARDS=URL reads them.

    URL is anything that fsspec opens; s3:// needs `pip install 'nullscope[s3]'`. Run again, it goes on where it stopped and sends
    only what is missing or has changed; nothing is deleted. Credentials and endpoint come from AWS_PROFILE, AWS_ACCESS_KEY_ID,
    ..., FSSPEC_S3_ENDPOINT_URL.

    \b
    Example:
      nullscope upload-shards s3://bucket/prefix
      NULLSCOPE_SHARDS=s3://bucket/prefix python stages/train.py ns_net 0
    """
    from tqdm import tqdm

    from nullscope.shards.upload import total_bytes, upload

    sent = kept = size = 0
    try:
        with tqdm(total=total_bytes(shards), unit="B", unit_scale=True, desc="upload") as bar:
            for tar in upload(shards, place):
                bar.update(tar.bytes)
                sent, kept, size = sent + tar.sent, kept + (not tar.sent), size + tar.bytes * tar.sent
    except (ValueError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted: run the same command again, it goes on there")
    click.echo(f"{place}: {sent} tars sent ({size / 1e6:.1f} MB), {kept} were there; read them with NULLSCOPE_SHARDS={place}")


@main.command()
@click.argument("model", type=FOLDER)
@click.argument("out", type=PATH)
def export(model: Path, out: Path) -> None:
    """Write the image tower of MODEL as stock open_clip weights to the file OUT (safetensors), adapters merged.

    Load it with `clip.visual.load_state_dict(safetensors.torch.load_file(OUT))`, strictly.
    """
    import torch
    from safetensors.torch import save_file

    from nullscope.backbones.attention import fused_state_dict
    from nullscope.backbones.clip import load_image_tower
    from nullscope.core.files import replacing
    from nullscope.model_folder import detached, load

    try:
        detector, facts = load(model, torch.device("cpu"))
        if not hasattr(detector, "clip"):
            raise ValueError(f"{model}: {facts.detector} adapts no CLIP; there is no image tower to export")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    state = fused_state_dict(detector.clip.tower)
    if "proj" not in state:  # of a detector on the features before the projection
        state["proj"] = load_image_tower(model / "clip").proj
    with replacing(out) as partial:
        save_file(detached(state), partial)
    click.echo(f"{out}: image tower of {model}, adapters merged")


@main.command("import-weights")
@click.argument("detector")
@click.argument("file", type=PATH)
@click.option("--preset", type=click.Choice(["official", "aigibench"]), help="Whose recipe; default: the first that there is.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Another value of the detector's; repeatable.")
@click.option("--backbone", "backbones", multiple=True, metavar="NAME=FOLDER", help="Frozen network; default: of the run.")
@click.option("--out", required=True, type=PATH, help="Folder of the model, such as models/npr_official.")
def import_weights(
    detector: str, file: Path, preset: str | None, params: tuple[str, ...], backbones: tuple[str, ...], out: Path
) -> None:
    """Turn the published checkpoint FILE of DETECTOR into a model folder, which every other command takes.

    The file is read without running anything in it, and must hold the detector's tensors, all of them and no others. The preset
    is conf/detectors/DETECTOR_PRESET.yaml, so the command runs in the project's root. A frozen network that the file carries is
    compared with the one of --backbone, and not stored twice.

    \b
    Examples:
      nullscope import-weights npr NPR.pth --out models/npr_official
      nullscope import-weights tiny_ladeda ForenSynth_Tiny_LaDeDa.pth --param residual=npr --out models/tiny_ladeda_official
      nullscope import-weights univfd fc_weights.pth --backbone clip=vit_l_14 --out models/univfd_official
      nullscope predict photo.jpg --model models/npr_official
    """
    from nullscope.importing import folders_of, import_weights, preset_config

    try:
        name, config = preset_config(detector, preset, params)
        done = import_weights(file, config, name, out, folders_of(backbones))
    except (ValueError, OSError) as error:
        _fail(str(error))
    taken = f" (without {' and '.join(done.unwrapped)})" if done.unwrapped else ""
    click.echo(f"{file}{taken} -> {out}: {name}, official weights")
    known = done.known
    said = f"{known.name}, trained on {known.trained_on}; {known.licence}" if known else "not in our list of released weights"
    click.echo(f"SHA-256 {done.facts.checkpoint}: {said}")


def _fail(sentence: str) -> NoReturn:
    """End the program with status 2; no usage, where the command line is not what was wrong."""
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(2)


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


def _sources(images: tuple[str, ...]) -> Iterator[str]:
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
    writer = csv.DictWriter(sys.stdout, ["source", "logit", "score", "fake", "refused"], lineterminator="\n", restval="")
    writer.writeheader()
    refused = 0
    for verdict in verdicts:
        writer.writerow(verdict.as_dict())
        refused += verdict.refused is not None
    return refused


def _print_table(verdicts: Iterable[Verdict]) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, refused = Table("verdict", "score", "logit", "source", box=None, pad_edge=False), []
    for column in table.columns[1:3]:
        column.justify = "right"
    for verdict in verdicts:
        if verdict.refused is not None:
            refused.append(verdict)
        else:
            word = {True: "generated", False: "real", None: "-"}[verdict.fake]
            table.add_row(word, f"{verdict.score:.3f}", f"{verdict.logit:+.2f}", Text(streams.printable(verdict.source)))
    if table.row_count:
        Console(width=WIDE).print(table)
    for verdict in refused:
        click.echo(streams.printable(f"refused: {verdict.source}: {verdict.refused}"), err=True)
    return len(refused)
