"""``nullscope verify``: are the results what ``dvc.lock`` names?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nullscope.cli.shared import fail
from nullscope.core import streams


@click.command()
@click.option("--remote", metavar="NAME", help="Read a remote too: its name, or `default`.")
def verify(remote: str | None) -> None:
    """Hash all results again and compare them with dvc.lock, in the workspace, the cache and a remote.

    DVC itself looks at sizes and times; this reads every byte, and so finds what a disk or a copy has changed. Beside each file
    that is damaged, missing, not listed or older than its code stands what to run.

    The exit status is 0 when everything is as dvc.lock says, 1 when something is not, 2 when nothing could be verified.

    \b
    Examples:
      nullscope verify
      nullscope verify --remote storage
    """
    from tqdm import tqdm

    from nullscope.verification import VerificationError
    from nullscope.verification import verify as verified

    try:
        with tqdm(unit="B", unit_scale=True, desc="verify", delay=2, leave=False) as bar:
            report = verified(Path(), "" if remote == "default" else remote, bar.update)
    except (VerificationError, OSError) as error:
        fail(str(error))
    for finding in report.findings:
        click.echo(streams.printable(f"{finding.where}: {finding.path}: {finding.what}; {finding.remedy}"))
    read = ", ".join(f"{count:,} in the {name}" for name, count in report.hashed.items())
    state = f"{len(report.findings)} not as dvc.lock says" if report.findings else "all as dvc.lock says"
    click.echo(f"{report.outputs} outputs, files read: {read}; {state}")
    if report.left_out:
        click.echo(streams.printable(report.left_out))
    sys.exit(1 if report.findings else 0)
