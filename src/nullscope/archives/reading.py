"""Zip and tar archives read in place: the names of their members, and any one member, without unpacking the others.

A member is named ``<archive>::<member>``, as in the column ``source`` of the index. A zip has a directory at its end. A plain tar
has none, so its headers are read once per process. An archive that is compressed as a whole (`NOT_OPENED`) would have to be read
from its start for every member, so it is refused with what to do. Zips in several parts (``x.z01``, ``x.z02``, ..., ``x.zip``)
are read by `split_zip`.
"""

from __future__ import annotations

import errno
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nullscope.archives.split_zip import SplitZip, first_part

SEPARATOR = "::"
SUFFIXES = (".zip", ".tar")
NOT_OPENED = {  # suffix -> what to do
    **dict.fromkeys((".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"), "decompress it to a plain .tar"),
    **dict.fromkeys((".7z", ".7z.001", ".rar"), "unpack it"),
}
OPEN = 4  # archives that a process keeps open: the directory of one with a million members takes a gigabyte


class ArchiveError(OSError):
    """An archive, or a member of it, that cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, reason)


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its files."""

    size: int  # bytes, unpacked
    refused: str = ""  # why it cannot be read


def is_archive(name: str) -> bool:
    """Return whether a file of this name is opened as an archive."""
    return name.lower().endswith(SUFFIXES)


def why_not_opened(name: str) -> str:
    """Return why a file of this name is an archive that is not opened; empty if it is no such archive."""
    remedy = next((remedy for suffix, remedy in NOT_OPENED.items() if name.lower().endswith(suffix)), "")
    return remedy and f"an archive without random access to its members: {remedy}"


def members(archive: Path) -> dict[str, Member]:
    """Return the files of an archive by their names, without folders. Raises `OSError` if it cannot be read."""
    return _opened(archive).members


def read_source(path: Path) -> bytes:
    """Return the bytes of a file, or of a member of an archive (``<archive>::<member>``). Raises `OSError`."""
    archive, member = _parts(path)
    return path.read_bytes() if archive is None else _opened(archive).read(member)


def source_size(path: Path) -> int:
    """Return the size of what `read_source` reads, in bytes. Raises `OSError`."""
    archive, member = _parts(path)
    if archive is None:
        return path.stat().st_size
    return _listed(_opened(archive), member).size


def archive_of(path: Path) -> Path:
    """Return the file that a source lies in: the archive of a member, or the path itself."""
    return _parts(path)[0] or path


class Archive(Protocol):
    """An open archive."""

    members: dict[str, Member]

    def read(self, name: str) -> bytes:
        """Return the bytes of one member. Raises `OSError`."""

    def close(self) -> None:
        """Close the file."""


class _Zip:
    def __init__(self, path: Path) -> None:
        try:
            self.file = SplitZip(path) if first_part(path).exists() else zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise ArchiveError(f"damaged zip archive: {error}") from None
        self.names = {_normal(info.filename): info for info in self.file.infolist() if not info.is_dir()}
        self.members = {
            name: Member(info.file_size, "encrypted" if info.flag_bits & 1 else "") for name, info in self.names.items()
        }

    def read(self, name: str) -> bytes:
        _listed(self, name)
        try:
            return self.file.read(self.names[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ArchiveError(f"damaged member of a zip archive: {error}") from None

    def close(self) -> None:
        self.file.close()


class _Tar:
    def __init__(self, path: Path) -> None:
        self.offsets: dict[str, int] = {}
        self.members = {}
        self.file = open(path, "rb")  # noqa: SIM115 (closed by `close`)
        try:
            with tarfile.open(fileobj=self.file, mode="r:") as tar:
                for info in tar:
                    if not info.isdir():
                        name, plain = _normal(info.name), info.isreg() and not info.issparse()
                        self.members[name] = Member(info.size, "" if plain else "a link, a sparse or a special file in a tar")
                        self.offsets[name] = info.offset_data
                    tar.members = []  # of a million files the list would take a gigabyte
        except tarfile.TarError as error:
            self.file.close()
            raise ArchiveError(f"damaged tar archive: {error}") from None

    def read(self, name: str) -> bytes:
        size = _listed(self, name).size
        data = os.pread(self.file.fileno(), size, self.offsets[name])
        if len(data) != size:
            raise ArchiveError(f"a tar archive that ends too early: {len(data)} of {size} bytes of the member")
        return data

    def close(self) -> None:
        self.file.close()


class _OpenArchives:
    """The archives that this process has open: the last `OPEN` that were used."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[object, ...], Archive] = OrderedDict()

    def get(self, path: Path) -> Archive:
        info = os.stat(path)
        # A forked process shares the position in an open file with its parent, so each process opens its own.
        key = os.getpid(), os.fspath(path), info.st_size, info.st_mtime_ns, info.st_ino
        if key not in self.open:
            self.open[key] = _Tar(path) if path.name.lower().endswith(".tar") else _Zip(path)
        self.open.move_to_end(key)
        while len(self.open) > OPEN:
            self.open.popitem(last=False)[1].close()
        return self.open[key]


_ARCHIVES = _OpenArchives()


def _opened(path: Path) -> Archive:
    return _ARCHIVES.get(path)


def _listed(archive: Archive, name: str) -> Member:
    if name not in archive.members:
        raise ArchiveError("nothing of this name in the archive")
    member = archive.members[name]
    if member.refused:
        raise ArchiveError(member.refused)
    return member


def _parts(path: Path) -> tuple[Path | None, str]:
    head, separator, member = os.fspath(path).partition(SEPARATOR)
    return (Path(head), member) if separator and is_archive(head) else (None, "")


def _normal(name: str) -> str:
    """Return a member's name as a path in its plainest form: archives of ``.`` begin every name with ``./``."""
    return posixpath.normpath(name.replace("\\", "/"))
