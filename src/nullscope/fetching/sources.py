"""Where the data sets come from: one entry of ``sources.yaml`` for each file of conf/dataset."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from nullscope.core.config import Params, read_params, section_of, validate

Text = Annotated[str, Field(min_length=1)]
AGAIN = "run the same command again, it continues where this one stopped"  # the end of errors that may be gone at the next run


class FetchError(ValueError):
    """A fetch was stopped; the message says what was expected, what was found and what to do."""


class Source(Params):
    """Where one data set comes from. Paths are relative to the folder that it is fetched to."""

    kind: Literal["huggingface", "kaggle", "manual", "none"]  # none: nothing to fetch
    repository: Text | None = None  # repository of the hub, handle of Kaggle, or page
    revision: Text | None = None  # commit of the hub, version of Kaggle; None: the newest, recorded
    files: list[Text] = Field(default_factory=list)  # patterns on the repository's paths; a star crosses slashes
    into: dict[Text, Text] = Field(default_factory=dict)  # pattern -> folder, where it is another than in the repository
    folder: Text  # name of the folder beside the project where it goes by default
    licence: Text  # and terms, in a line
    size: Text = "?"  # a question mark for what is not known or not confirmed
    expected: Annotated[list[Text], Field(min_length=1)]  # what should lie there afterwards
    then: list[Text] = Field(default_factory=list)  # commands between fetching and using it; {to} is the folder
    use: Text = "dvc exp run -S dataset={name} -S dataset.root={to}"  # the command that uses it
    notes: list[Text] = Field(default_factory=list)

    def command(self, name: str, to: Path) -> str:
        """Return the command that runs the pipeline on what lies in ``to``."""
        return self.use.format(name=name, to=to)


def sources() -> dict[str, Source]:
    """Return the sources of all data sets by their names."""
    return {name: validate(f"sources.{name}", values, Source) for name, values in _entries().items()}


def source(name: str) -> Source:
    """Return the source of one data set. Raises `FetchError` naming those that are known, and a near one."""
    try:
        return validate(f"sources.{name}", section_of(_entries(), name, Path("`nullscope fetch`")), Source)
    except ValueError as error:
        raise FetchError(str(error)) from None


def _entries() -> dict:
    with as_file(files("nullscope.fetching") / "sources.yaml") as path:
        return read_params(path)
