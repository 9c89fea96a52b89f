"""What lies below the root of a data set: ``<folder>/0_real/*`` and ``<folder>/1_fake/*``, in folders or in archives.

The names of the label folders are parameters (original GenImage says ``nature`` and ``ai``). `dataset` says what the folder above
them means. A zip or tar archive is read as if it were unpacked where it lies; if its members begin with a label folder, as if it
were unpacked into a folder with the archive's name. Nothing is skipped in silence: a file is found, refused with a reason, or
ignored and counted.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Union

from nullscope.archives.members import Fault, refusal
from nullscope.archives.reading import SEPARATOR, faults, is_archive, members, why_not_opened
from nullscope.core.contracts import LABEL_FOLDERS, REAL
from nullscope.sources.dataset import LABEL_WORDS, DatasetError

HIDDEN_NAMES = ("thumbs.db", "desktop.ini")  # what Windows leaves in folders; names with a leading dot are hidden too
Listed = Union["Found", "Refused", "Ignored"]
UNNAMEABLE = "the name is not UTF-8; neither Parquet nor DVC can hold it: rename it"
HIDDEN, OUTSIDE, UNPACKED = "hidden", "outside_label_folders", "unpacked_beside_the_archive"  # why files are ignored


@dataclass(frozen=True)
class Found:
    """A file under a label folder; it has not been opened."""

    source: str  # path relative to the root, or `<archive>::<member>`
    folder: str  # path above the label folder, `.` for the root itself
    label: int
    generator: str | None = None  # this and what follows: where a manifest says it; of a fake
    source_of_real: str | None = None  # of a real
    group: str | None = None
    released: date | None = None  # of a fake


@dataclass(frozen=True)
class Refused:
    """A file or folder that cannot be read."""

    source: str  # path relative to the root; bytes that are not UTF-8 as \\xNN
    reason: str
    folder: str | None = None  # path above the label folder, None where there is no label folder above


@dataclass(frozen=True)
class Ignored:
    """Files of one folder that are outside the data set. A hidden folder counts as one file."""

    folder: str
    files: int
    why: str  # HIDDEN, OUTSIDE or UNPACKED


@dataclass(frozen=True)
class Packed:
    """An archive, not opened yet; `unpack` yields what it holds."""

    source: str
    place: Place  # where its members lie, as if unpacked


def walk(root: Path, labels: Mapping[str, int] = LABEL_FOLDERS) -> Iterator[Listed | Packed]:
    """Yield everything below ``root`` in the order of its names, in memory of one folder at a time.

    Symbolic links are followed; one that leads back to a folder above it is refused. No file is opened.
    Raises `DatasetError` if ``root`` is not a folder.
    """
    try:
        top = os.stat(root)
        entries = _entries(root)
    except OSError as error:
        raise DatasetError(f"dataset.root = {root}: expected a folder of images, found {refusal(error)}; {_REMEDY}") from None
    yield from _walk(entries, Place("", None, None, labels), {(top.st_dev, top.st_ino): "."})


_REMEDY = "point the data set elsewhere with `dvc exp run -S dataset=folder -S dataset.root=<folder>`"


@dataclass(frozen=True)
class Place:
    """A folder that the walk is in, and what the folders above it say."""

    prefix: str  # path relative to the root with a slash behind it, empty at the root
    folder: str | None  # path above the label folder, None while outside one
    label: int | None
    labels: Mapping[str, int]

    @property
    def here(self) -> str:
        """The folder under which ignored files are counted."""
        return self.folder if self.folder is not None else self.prefix.rstrip("/") or "."

    def enter(self, name: str) -> Place:
        """Return the place in the folder ``name`` of this one. Raises `ValueError` if it contradicts the label above."""
        label = self.labels.get(name, self.label)
        if self.label not in (None, label):
            raise ValueError(f"a folder {name} inside a folder of {LABEL_WORDS[self.label]}s: its files cannot be both")
        folder = self.folder if self.label is not None or label is None else self.prefix.rstrip("/") or "."
        return Place(f"{self.prefix}{name}/", folder, label, self.labels)

    def file(self, source: str) -> Found | None:
        """Return a file that lies here, None where no label folder is above."""
        return None if self.label is None else Found(source, self.folder or ".", self.label)


def everything(folder: Path) -> Iterator[Listed | Packed]:
    """Yield everything below a folder as `walk` does, whatever the names of the folders: every file is found.

    Raises `OSError` if ``folder`` cannot be listed.
    """
    top = os.stat(folder)
    yield from _walk(_entries(folder), ANYWHERE, {(top.st_dev, top.st_ino): "."})


ANYWHERE = Place("", ".", REAL, {})  # where no folder's name has a meaning; the label is not looked at


def _walk(entries: list[os.DirEntry[str]], place: Place, above: dict[tuple[int, int], str]) -> Iterator[Listed | Packed]:
    ignored: Counter[str] = Counter()
    for entry in entries:
        source = place.prefix + entry.name
        if not is_utf8(source):
            yield _unnameable(source, place)
        elif _is_hidden(entry.name):
            ignored[HIDDEN] += 1
        elif entry.is_file(follow_symlinks=False):
            yield from _file(entry.name, place, ignored)
        else:
            yield from _follow(entry, place, above, ignored)
    yield from (Ignored(place.here, files, why) for why, files in sorted(ignored.items()))


def _file(name: str, place: Place, ignored: Counter[str]) -> Iterator[Listed | Packed]:
    """Yield a plain file as an image, as an archive, or as an archive that cannot be opened; its name says which."""
    source, reason = place.prefix + name, why_not_opened(name)
    if is_archive(name):
        yield Packed(source, place)
    elif reason:
        yield Refused(source, reason, place.folder)
    elif found := place.file(source):
        yield found
    else:
        ignored[OUTSIDE] += 1


def _follow(
    entry: os.DirEntry[str], place: Place, above: dict[tuple[int, int], str], ignored: Counter[str]
) -> Iterator[Listed | Packed]:
    """Yield what an entry leads to that is not a plain file: a folder, a link, or a device, which is refused."""
    source = place.prefix + entry.name
    try:
        info = entry.stat()
        entries = _entries(entry.path) if stat.S_ISDIR(info.st_mode) else []
    except OSError as error:
        yield Refused(source, refusal(error), place.folder)
        return
    key = (info.st_dev, info.st_ino)
    if stat.S_ISREG(info.st_mode):
        yield from _file(entry.name, place, ignored)
    elif not stat.S_ISDIR(info.st_mode):
        yield Refused(source, "not a file but a named pipe, a socket or a device", place.folder)
    elif key in above:
        yield Refused(source, f"a loop of links: it leads back to the folder {above[key]} above it", place.folder)
    else:
        try:
            inner = place.enter(entry.name)
        except ValueError as error:
            yield Refused(source, str(error), place.folder)
            return
        yield from _walk(entries, inner, {**above, key: source})


def unpack(root: Path, packed: Packed) -> Iterator[Listed]:
    """Yield the members of an archive in the order of their names, as `walk` would if they were unpacked.

    A member that lies unpacked beside the archive, under its name and of its size, is ignored: it would count twice. Only the
    directory of an archive is read, no member. What the archive has lost is refused.
    """
    archive = root / packed.source
    try:
        found, lost = members(archive), faults(archive)
    except (OSError, MemoryError) as error:
        yield Refused(packed.source, refusal(error), packed.place.folder)
        return
    place = _top(packed, list(found))
    yield from (_lost(packed, fault) for fault in lost)
    if not found and not lost:
        yield Refused(packed.source, "an archive without files", packed.place.folder)
    places: dict[str, Place | str] = {"": place}
    ignored: Counter[tuple[str, str]] = Counter()
    for name in sorted(found, key=os.fsencode):
        folder, _, base = name.rpartition("/")
        where, source = _enter(places, folder), f"{packed.source}{SEPARATOR}{name}"
        if not is_utf8(name):
            yield _unnameable(source, place)
        elif _lies_at(root / place.prefix / name, found[name].size):
            ignored[place.here, UNPACKED] += 1
        elif where == HIDDEN or _is_hidden(base):
            ignored[place.here, HIDDEN] += 1
        elif isinstance(where, str):
            yield Refused(source, where, place.folder)
        elif found[name].refused:
            yield Refused(source, found[name].refused, where.folder)
        elif item := where.file(source):
            yield item
        else:
            ignored[where.here, OUTSIDE] += 1
    yield from (Ignored(folder, files, why) for (folder, why), files in sorted(ignored.items()))


def _lost(packed: Packed, fault: Fault) -> Refused:
    source = f"{packed.source}{SEPARATOR}{fault.name}" if fault.name else packed.source
    return Refused(escaped(source), fault.reason, packed.place.folder)


def _lies_at(path: Path, size: int) -> bool:
    """Return whether a file of this size lies there."""
    try:
        return os.stat(path).st_size == size
    except (OSError, ValueError):
        return False


def _top(packed: Packed, names: list[str]) -> Place:
    """Return where an archive's members lie."""
    place = packed.place
    if place.label is None and any(name.partition("/")[0] in place.labels for name in names if "/" in name):
        return place.enter(Path(packed.source).stem)
    return place


def _enter(places: dict[str, Place | str], folder: str) -> Place | str:
    """Return the place of a folder in an archive, or why its files are ignored (`HIDDEN`) or refused.

    ``places`` holds those that are known, and receives the new ones.
    """
    if folder not in places:
        above, _, name = folder.rpartition("/")
        outer = _enter(places, above)
        if isinstance(outer, str):
            places[folder] = outer
        elif name == "..":
            places[folder] = "a name that leads out of the archive"
        elif _is_hidden(name) or name == "__MACOSX":
            places[folder] = HIDDEN
        else:
            try:
                places[folder] = outer.enter(name)
            except ValueError as error:
                places[folder] = str(error)
    return places[folder]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def _unnameable(source: str, place: Place) -> Refused:
    return Refused(escaped(source), UNNAMEABLE, place.folder)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def is_utf8(name: str) -> bool:
    """Return whether a name is text, and not bytes of another encoding."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # Python stands in for bytes that it cannot decode with lone surrogates
        return False
    return True


def escaped(name: str) -> str:
    """Return a name with the bytes that are not UTF-8 as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
