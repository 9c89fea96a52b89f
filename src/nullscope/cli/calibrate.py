"""``nullscope calibrate``: the threshold of a model, set on one's own photographs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from nullscope.cli.predict import explained, sources
from nullscope.cli.shared import FOLDER, PATH, fail
from nullscope.core import streams


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--images", multiple=True, required=True, metavar="IMAGE", help="File, folder or archive; repeatable.")
@click.option("--real", is_flag=True, required=True, help="Say that all of them are photographs: nobody checks it.")
@click.option("--out", required=True, type=PATH, help="Folder of the copy, such as models/ns_net-0-newsroom.")
def calibrate(model: Path, images: tuple[str, ...], real: bool, out: Path) -> None:
    """Set the threshold of MODEL on your own photographs, in a copy.

    A detector may call far more of your camera's pictures generated than of those that it was validated on. This scores real
    photographs of yours and writes a copy of the model whose thresholds rest on them: on at least 19 for 5 % false alarms, on 99
    for 1 %. They must not be images that you judge later, nor generated ones. A file that cannot be scored is named and left out.

    \b
    Examples:
      nullscope calibrate models/ns_net-0 --images ~/Pictures/2025 --real --out models/ns_net-0-mine
      nullscope predict new.jpg --model models/ns_net-0-mine --fpr 0.01
    """
    from nullscope.calibration import calibrate as calibrated
    from nullscope.core import ranks
    from nullscope.prediction import expand

    ignored: Counter[str] = Counter()
    try:
        photographs = list(expand(sources(images), ignored))
        where = f"{len(photographs)} files of {', '.join(Path(image).name or image for image in images)}"
        done = calibrated(model, out, photographs, where, workers=ranks.workers())
    except (ValueError, OSError) as error:
        fail(str(error))
    for verdict in done.refused:
        click.echo(streams.printable(f"refused: {verdict.source}: {verdict.refused}"), err=True)
    repeated = f", {done.repeated} repeated" if done.repeated else ""
    click.echo(f"{out}: {done.decision.promise.images} photographs, {len(done.refused)} refused{repeated}")
    click.echo(f"before: {100 * done.before:.1f} % of them lie above the threshold of {model}")
    click.echo(f"now: {explained(done.decision)}")
