"""The command `nullscope fetch`: what is asked for, and which module fetches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nullscope.fetching import guide, hub, kaggle
from nullscope.fetching.checks import readable, sole_writer
from nullscope.fetching.record import Record
from nullscope.fetching.sources import FetchError, Source, source, sources


@dataclass(frozen=True)
class Request:
    """The command line of `nullscope fetch`."""

    dataset: str
    folder: Path | None  # None: the source's own name, beside the project
    only: tuple[str, ...]
    revision: str | None
    dry_run: bool
    verify: bool


def list_sources() -> None:
    """Print the table of all sources."""
    console = Console()
    guide.print_sources(sources(), console if console.is_terminal else Console(width=guide.WIDE))


def run(request: Request) -> None:
    """Fetch a data set and say how to use it, or say how to get it. Raises `FetchError`."""
    found, console = source(request.dataset), Console(width=guide.WIDE)
    folder = request.folder or Path("..") / found.folder
    if found.kind != "huggingface" and (request.only or request.revision):
        raise FetchError(
            f"{request.dataset}: --only and --revision are for data sets of the hub, found one that comes "
            f"{'whole' if found.kind == 'kaggle' else 'by hand'}; leave them out"
        )
    if found.kind == "huggingface":
        _from_hub(request, found, folder, console)
    elif found.kind == "kaggle":
        _from_kaggle(request, found, folder, console)
    else:
        guide.print_manual(request.dataset, found, folder, console)


def _from_hub(request: Request, found: Source, folder: Path, console: Console) -> None:
    listing = hub.list_files(found, request.only, request.revision)
    if request.dry_run:
        guide.print_plan(listing, Record.read(folder, listing.origin), console)
        guide.print_use(request.dataset, found, folder, console)
        return
    with sole_writer(folder):
        new = hub.fetch(found, listing, folder, verify=request.verify)
    size = readable(sum(remote.size for remote in listing.files))
    guide.say(console, f"{request.dataset}: {len(listing.files)} files, {size}, verified in {folder}; {new} of them fetched now")
    guide.say(console, f"Revision {listing.origin.revision} of {listing.origin.repository}; licence: {found.licence}")
    guide.print_use(request.dataset, found, folder, console)


def _from_kaggle(request: Request, found: Source, folder: Path, console: Console) -> None:
    if request.dry_run:
        guide.say(console, f"Nothing was fetched: {found.repository}, version {found.revision}, would go to {folder}")
        guide.say(console, f"Kaggle tells the size as it comes; licence: {found.licence}")
        guide.print_use(request.dataset, found, folder, console)
        return
    with sole_writer(folder):
        files, new = kaggle.fetch(found, folder, verify=request.verify)
    guide.say(console, f"{request.dataset}: {files} files in {folder}; {new} of them fetched now")
    guide.say(console, f"Version {found.revision} of {found.repository}; licence: {found.licence}")
    guide.print_use(request.dataset, found, folder, console)
