"""What all commands share: the types of their arguments, and how they end where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from nullscope.core import streams

PATH, FOLDER = click.Path(path_type=Path), click.Path(exists=True, file_okay=False, path_type=Path)


def judging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a logit becomes an answer: ``fpr``, ``no_band``, ``anyway``."""
    rate = "False alarms to promise, such as 0.01; default: 0.05, if it can be."
    rendered = "Give verdicts also with a detector that has seen nothing but rendered scenes."
    command = click.option("--anyway", is_flag=True, help=rendered)(command)
    command = click.option("--no-band", is_flag=True, help="Two answers, generated and real: never `not sure`.")(command)
    return click.option("--fpr", type=float, metavar="RATE", help=rate)(command)


def fail(sentence: str) -> NoReturn:
    """End the program with status 2; no usage, where the command line is not what was wrong."""
    click.echo(f"Error: {streams.printable(sentence)}", err=True)
    sys.exit(2)
