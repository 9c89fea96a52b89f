"""What `nullscope fetch` prints: the table of sources, how to get a data set by hand, and how to use a data set that is there."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nullscope.fetching.checks import free_bytes, readable
from nullscope.fetching.hub import Listing, Remote
from nullscope.fetching.record import Record
from nullscope.fetching.sources import Source

KINDS = {"huggingface": "Hugging Face", "kaggle": "Kaggle", "manual": "by hand", "none": "nothing to fetch"}
WIDE = 100_000  # columns: no cell is cut, in a pipe or in a terminal, which wraps it


def print_sources(sources: dict[str, Source], console: Console) -> None:
    """Print one line a data set: name, from where, size, licence; in a narrow terminal its cells are wrapped."""
    table = Table("data set", "from", "size", "licence and terms", box=None, pad_edge=False)
    for name, source in sources.items():
        table.add_row(*(Text(cell) for cell in (name, KINDS[source.kind], source.size, source.licence)))
    console.print(table)
    say(console, "\n?: not known, or known from others only. How much the hub has now: nullscope fetch DATASET --dry-run")


def print_plan(listing: Listing, record: Record, console: Console) -> None:
    """Print what a fetch would bring: one line per file with what is there of it, and the free space on the disk."""
    table = Table("file", "size", "state", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    states = {remote.name: _state(record, remote) for remote in listing.files}
    for remote in listing.files:
        table.add_row(*(Text(cell) for cell in (remote.name, readable(remote.size), states[remote.name])))
    console.print(table)
    whole = sum(remote.size for remote in listing.files)
    left = sum(
        remote.size - remote.begun(record.folder)
        for remote in listing.files
        if states[remote.name] not in ("verified", "there, to be checked")
    )
    origin, free = listing.origin, readable(free_bytes(record.folder))
    say(console, f"{len(listing.files)} files, {readable(whole)}, of {origin.repository}@{origin.revision}")
    say(console, f"{readable(left)} to be fetched into {record.folder}, {free} free there; nothing was fetched")


def print_manual(name: str, source: Source, folder: Path, console: Console) -> None:
    """Print how to get a data set that no program can fetch, or that there is nothing to fetch."""
    if source.kind == "manual":
        say(console, f"Nothing was fetched: {name} has no address that a program can rely on; get it by hand.")
        say(console, f"\nPage:     {source.repository}")
    else:
        say(console, f"Nothing was fetched: for {name} there is nothing to fetch.\n")
    say(console, f"Licence:  {source.licence}")
    if source.kind == "manual":
        say(console, f"Size:     {source.size}")
    print_use(name, source, folder, console)


def print_use(name: str, source: Source, folder: Path, console: Console) -> None:
    """Print the folders that are expected, the notes on the data set, and the command that uses it."""
    for title, lines in ((f"Expected in {folder}:", source.expected), ("To know:", source.notes)):
        if lines:
            say(console, f"\n{title}")
            for line in lines:
                say(console, f"  {line}")
    if source.then:
        say(console, "\nThen:")
        for line in source.then:
            say(console, f"  {line.format(to=folder)}")
    say(console, f"\nUse it:\n  {source.command(name, folder)}")


def say(console: Console, text: str) -> None:
    """Print a text as it is: without markup, and without breaking it."""
    console.print(Text(text), soft_wrap=True)


def _state(record: Record, remote: Remote) -> str:
    """Return what is there of a file, without reading it."""
    known = record.known(remote.name)
    if known is not None and remote.matches(known):
        return "verified"
    if (record.folder / remote.name).exists():
        return "there, to be checked"
    begun = remote.begun(record.folder)
    return f"{readable(begun)} there" if begun else "to be fetched"
