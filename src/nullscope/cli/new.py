"""``nullscope new``: a project of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from nullscope.cli.shared import PATH, fail


@click.command()
@click.argument("folder", type=PATH)
def new(folder: Path) -> None:
    """Make a project in FOLDER: dvc.yaml, conf/ and stages/, to train and compare detectors on data of your own.

    The folder must be new or empty. It needs no checkout of nullscope: its stages run the installed package, and after an upgrade
    what that touches runs again.

    \b
    Example:
      nullscope new forensics && cd forensics && dvc repro
    """
    from nullscope.project import create

    try:
        lacking = create(folder)
    except (ValueError, OSError) as error:
        fail(str(error))
    click.echo(f"{folder}: a project; its README.md says what to type, beginning with `dvc repro`")
    if lacking:
        click.echo(lacking, err=True)
