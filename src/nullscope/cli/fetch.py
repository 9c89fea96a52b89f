"""``nullscope fetch``: data sets and released weights."""

from __future__ import annotations

from pathlib import Path

import click

from nullscope.cli.shared import PATH, fail


@click.command()
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
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted: the files that were complete are verified and stay; run the same command again, it continues there")
