"""The one reader of originals: a plain file, or a member of a zip or tar that is read where it lies, with bounds before the work.

A member is named ``<archive>::<member>``, as in the column ``source`` of the index. A zip has a directory at its end. A plain tar
has none, so its headers are read once per process. An archive that is compressed as a whole (`NOT_OPENED`) would have to be read
from its start for every member, so it is refused with what to do. Zips in several parts (``x.z01``, ``x.z02``, ..., ``x.zip``)
are read by `split_zip`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from nullscope.archives.members import Archive, ArchiveError, Fault, Member, open_file
from nullscope.archives.tars import Tar
from nullscope.archives.zips import Zip

SEPARATOR = "::"
SUFFIXES = (".zip", ".tar")
NOT_OPENED = {  # suffix -> what to do
    **dict.fromkeys((".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"), "decompress it to a plain .tar"),
    **dict.fromkeys((".7z", ".7z.001", ".rar"), "unpack it"),
}
OPEN = 4  # archives that a process keeps open: the directory of one with a million members takes a gigabyte
LARGEST_FILE = 64 * 2**20  # bytes of an image's file; or 8 per pixel of the limit, which is RGBA of 16 bits without compression


def is_archive(name: str) -> bool:
    """Return whether a file of this name is opened as an archive."""
    return name.lower().endswith(SUFFIXES)


def why_not_opened(name: str) -> str:
    """Return why a file of this name is an archive that is not opened; empty if it is no such archive."""
    remedy = next((remedy for suffix, remedy in NOT_OPENED.items() if name.lower().endswith(suffix)), "")
    return remedy and f"an archive without random access to its members: {remedy}"


def members(archive: Path) -> dict[str, Member]:
    """Return the files of an archive by their names, without folders. Raises `OSError` if it cannot be read."""
    return _ARCHIVES.get(archive).members


def faults(archive: Path) -> list[Fault]:
    """Return what an archive has lost, beside `members`. Raises `OSError` if it cannot be read."""
    return _ARCHIVES.get(archive).faults


def read_source(path: Path, *, max_pixels: int | None = None) -> bytes:
    """Return the bytes of a file, or of a member of an archive (``<archive>::<member>``).

    With ``max_pixels`` a file is refused by its size, before it is read, if no image of so many pixels takes as much. Raises
    `OSError`, or `ValueError` if the path holds a NUL.
    """
    archive, name = parts_of(path)
    if archive is not None:
        opened = _ARCHIVES.get(archive)
        check_size(_listed(opened, name).size, max_pixels)
        return opened.read(name)
    descriptor = open_file(path)
    with os.fdopen(descriptor, "rb") as file:
        check_size(os.fstat(descriptor).st_size, max_pixels)
        return file.read()


def archive_of(path: Path) -> Path:
    """Return the file that a source lies in: the archive of a member, or the path itself."""
    return parts_of(path)[0] or path


def parts_of(path: Path) -> tuple[Path | None, str]:
    """Return the archive and the member that a source names; None for a plain file, also in a folder with ``::`` in its name."""
    text = os.fspath(path)
    at = text.find(SEPARATOR)
    while at >= 0:
        if is_archive(text[:at]):
            return Path(text[:at]), text[at + len(SEPARATOR) :]
        at = text.find(SEPARATOR, at + 1)
    return None, ""


def check_size(size: int, max_pixels: int | None) -> None:
    """Raise `ArchiveError` if no image of ``max_pixels`` pixels has a file of ``size`` bytes."""
    if max_pixels is not None and size > (limit := max(LARGEST_FILE, 8 * max_pixels)):
        raise ArchiveError(f"{size} bytes: no image of dataset.max_pixels = {max_pixels} takes more than {limit}")


def _listed(archive: Archive, name: str) -> Member:
    if name not in archive.members:
        raise ArchiveError("nothing of this name in the archive")
    member = archive.members[name]
    if member.refused:
        raise ArchiveError(member.refused)
    return member


class _OpenArchives:
    """The archives that this process has open: the last `OPEN` that were used."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[object, ...], Archive] = OrderedDict()

    def get(self, path: Path) -> Archive:
        info = os.stat(path)
        # A forked process shares the position in an open file with its parent, so each process opens its own.
        key = os.getpid(), os.fspath(path), info.st_size, info.st_mtime_ns, info.st_ino
        if key not in self.open:
            self.open[key] = Tar(path) if path.name.lower().endswith(".tar") else Zip(path)
        self.open.move_to_end(key)
        while len(self.open) > OPEN:
            self.open.popitem(last=False)[1].close()
        return self.open[key]


_ARCHIVES = _OpenArchives()
