"""Data sets in folders: ``<folder>/0_real/*`` and ``<folder>/1_fake/*``, as every benchmark of the field lays them out.

The folder above the label folder decides the split and the subset. A pattern such as ``train/*`` is matched component by
component from the root; the last component it matches names the subset, and deeper folders (classes, mostly) belong to it:
``progan/airplane/0_real/x.png`` is of subset ``progan`` under the pattern ``progan``. Where several patterns of a list match,
the first one counts. Label folders at the root itself are one subset, named as the data set.

Nothing is skipped in silence: a file is found, refused with a reason, or ignored and counted.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, PositiveInt, field_validator

from nullscope.config import Params
from nullscope.contracts import LABEL_FOLDERS, REAL, REAL_GENERATOR, SPLITS

HIDDEN_NAMES = ("thumbs.db", "desktop.ini")  # what Windows leaves in folders; names with a leading dot are hidden too
Item = Union["Found", "Refused", "Ignored"]
HIDDEN, OUTSIDE = "hidden", "outside_label_folders"  # why files are ignored
LABEL_NAMES = {label: name for name, label in LABEL_FOLDERS.items()}


class DatasetError(ValueError):
    """The folders on the disk are not what the parameters say."""


class DatasetParams(Params):
    """Where a data set lies and what of it is training and testing."""

    name: Annotated[str, Field(min_length=1)]
    root: Annotated[str, Field(min_length=1)]  # folder, absolute or relative to the project
    train: Annotated[list[str], Field(min_length=1)]  # patterns on the folder above the label folder, relative to the root
    test: Annotated[list[str], Field(min_length=1)]
    train_fraction: Annotated[float, Field(gt=0, lt=1)]  # share of images that train, in subsets that both lists match
    generators: dict[str, str] = Field(default_factory=dict)  # subset -> generator of its fakes, where names differ
    max_pixels: PositiveInt  # larger images are refused before they are decoded
    world: dict[str, Any] | None = None  # the embedded world's recipe; not read here

    @field_validator("train", "test")
    @classmethod
    def _relative_patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            if any(part in ("", ".", "..") for part in pattern.split("/")):
                raise ValueError(f"{pattern!r} is no pattern: expected folder names below the root, such as `train/*`")
        return patterns

    def subset(self, split: str, folder: str) -> str | None:
        """Return the subset that ``folder`` belongs to in ``split``, None where no pattern of the split matches it."""
        patterns = tuple(self.train if split == "train" else self.test)
        return _subset(patterns, self.name if folder == "." else folder)

    def splits(self, folder: str) -> list[str]:
        """Return the splits that have a pattern for ``folder``: none, one or both."""
        return [split for split in SPLITS if self.subset(split, folder) is not None]

    def split_of(self, folder: str, image_id: str) -> str:
        """Return the split of one image of a matched folder.

        Where both lists match, the image's own id draws it, so that one image never is in both.
        """
        splits = self.splits(folder)
        if len(splits) == 1:
            return splits[0]
        return "train" if int(image_id[:16], 16) < self.train_fraction * 2**64 else "test"

    def generator(self, subset: str, label: int) -> str:
        """Return what the column ``generator`` says of an image."""
        return REAL_GENERATOR if label == REAL else self.generators.get(subset, subset)


@dataclass(frozen=True)
class Found:
    """A file under a label folder; it has not been opened."""

    source: str  # path relative to the root
    folder: str  # path above the label folder, `.` for the root itself
    label: int


@dataclass(frozen=True)
class Refused:
    """A file or folder that cannot be read."""

    source: str  # path relative to the root; bytes that are not UTF-8 as \\xNN
    reason: str
    folder: str | None = None  # path above the label folder, None where there is no label folder above


@dataclass(frozen=True)
class Ignored:
    """Files of one folder that belong to no data set. A hidden folder counts as one."""

    folder: str
    files: int
    why: str  # HIDDEN or OUTSIDE


def walk(root: Path) -> Iterator[Item]:
    """Yield everything below ``root`` in the order of its names, in memory of one folder at a time.

    Symbolic links are followed; one that leads back to a folder above it is refused. No file is opened.
    Raises `DatasetError` if ``root`` is not a folder.
    """
    try:
        top = os.stat(root)
        entries = _entries(root)
    except OSError as error:
        raise DatasetError(f"dataset.root = {root}: expected a folder of images, found {refusal(error)}; {_REMEDY}") from None
    yield from _walk(entries, _Place("", None, None), {(top.st_dev, top.st_ino): "."})


def refusal(error: OSError) -> str:
    """Return an operating system's refusal without the path, which is the machine's own."""
    known = {
        FileNotFoundError: "nothing there (a missing file, or a link to one)",
        PermissionError: "no permission to read it",
        NotADirectoryError: "a file",
    }
    return known.get(type(error), (error.strerror or type(error).__name__).lower())


_REMEDY = "point the data set elsewhere with `dvc exp run -S dataset=folder -S dataset.root=<folder>`"


@dataclass(frozen=True)
class _Place:
    """Where the walk stands."""

    prefix: str  # path relative to the root with a slash behind it, empty at the root
    folder: str | None  # path above the label folder, None while outside one
    label: int | None

    def enter(self, name: str) -> _Place:
        label = LABEL_FOLDERS.get(name, self.label)
        folder = self.folder if self.label is not None or label is None else self.prefix.rstrip("/") or "."
        return _Place(f"{self.prefix}{name}/", folder, label)


def _walk(entries: list[os.DirEntry[str]], place: _Place, above: dict[tuple[int, int], str]) -> Iterator[Item]:
    hidden = outside = 0
    for entry in entries:
        source = place.prefix + entry.name
        if not _is_utf8(source):
            yield Refused(_escaped(source), "the name is not UTF-8; neither Parquet nor DVC can hold it: rename it", place.folder)
        elif entry.name.startswith(".") or entry.name.lower() in HIDDEN_NAMES:
            hidden += 1
        elif entry.is_file(follow_symlinks=False) and place.label is None:
            outside += 1
        elif entry.is_file(follow_symlinks=False):
            yield Found(source, place.folder or ".", place.label)
        else:
            yield from _follow(entry, place, above)
    here = place.folder if place.folder is not None else place.prefix.rstrip("/") or "."
    yield from (Ignored(here, files, why) for files, why in ((hidden, HIDDEN), (outside, OUTSIDE)) if files)


def _follow(entry: os.DirEntry[str], place: _Place, above: dict[tuple[int, int], str]) -> Iterator[Item]:
    """Yield what lies behind an entry that is not a plain file: a folder, a link, or something never to be opened."""
    source = place.prefix + entry.name
    try:
        info = entry.stat()
        entries = _entries(entry.path) if stat.S_ISDIR(info.st_mode) else []
    except OSError as error:
        yield Refused(source, refusal(error), place.folder)
        return
    key, inner = (info.st_dev, info.st_ino), place.enter(entry.name)
    if stat.S_ISREG(info.st_mode) and place.label is None:
        yield Ignored(place.prefix.rstrip("/") or ".", 1, OUTSIDE)
    elif stat.S_ISREG(info.st_mode):
        yield Found(source, place.folder or ".", place.label)
    elif not stat.S_ISDIR(info.st_mode):
        yield Refused(source, "not a file but a named pipe, a socket or a device", place.folder)
    elif key in above:
        yield Refused(source, f"a loop of links: it leads back to the folder {above[key]} above it", place.folder)
    elif place.label not in (None, inner.label):
        reason = f"a folder {entry.name} inside {LABEL_NAMES[place.label]}: its files cannot be both real and fake"
        yield Refused(source, reason, place.folder)
    else:
        yield from _walk(entries, inner, {**above, key: source})


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # Python stands in for bytes that it cannot decode with lone surrogates
        return False
    return True


def _escaped(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@functools.lru_cache(maxsize=65_536)
def _subset(patterns: tuple[str, ...], folder: str) -> str | None:
    names = folder.split("/")
    for pattern in patterns:
        parts = pattern.split("/")
        if len(parts) <= len(names) and all(fnmatchcase(name, part) for name, part in zip(names, parts, strict=False)):
            return names[len(parts) - 1]
    return None
