"""What all commands share: the types of their arguments, and how they end where something is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from nullscope.core import streams

PATH, FOLDER = click.Path(path_type=Path), click.Path(exists=True, file_okay=False, path_type=Path)


def fail(sentence: str) -> NoReturn:
    """End the program with status 2; no usage, where the command line is not what was wrong."""
    click.echo(f"Error: {streams.printable(sentence)}", err=True)
    sys.exit(2)
