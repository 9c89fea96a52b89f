"""The command ``nullscope``: get data sets, judge images, look at the results, upload shards, export a tower.

Each command imports what it needs when it runs: torch takes seconds, and `--help` should not.
"""

from __future__ import annotations

import click

from nullscope.cli import calibrate, evaluate, fetch, models, new, predict, serve, shards, verify
from nullscope.core import streams


def run() -> None:
    """Run the command; the script ``nullscope`` begins here."""
    with streams.guarded():
        main()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nullscope")
def main() -> None:
    """Detectors of AI-generated images on CLIP features.

    Judge images with `nullscope predict`. Train and compare detectors with `dvc repro`, in a checkout or in a project that
    `nullscope new` makes.
    """


for command in (
    *(predict.predict, evaluate.evaluate, evaluate.summary, fetch.fetch, shards.upload_shards),
    *(models.import_weights, models.export, models.card, calibrate.calibrate, serve.serve, verify.verify, new.new),
):
    main.add_command(command)
