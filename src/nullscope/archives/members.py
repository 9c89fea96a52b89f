"""What zips and tars have in common: members, what is lost, errors, and files that are opened only if they are files."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nullscope.core.signatures import looks_like

REPEATED = "another member has the same name and stands behind it: that one is read"


class ArchiveError(OSError):
    """A file, an archive or a member of it that cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, reason)


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its files."""

    size: int  # bytes, unpacked
    refused: str = ""  # why it cannot be read


@dataclass(frozen=True)
class Fault:
    """What an archive lost: a member that has the name of another one, or all that lies behind a damaged place."""

    name: str  # of the member; empty where it has none
    reason: str


class Archive(Protocol):
    """An open archive."""

    members: dict[str, Member]
    faults: list[Fault]

    def read(self, name: str) -> bytes:
        """Return the bytes of one member. Raises `OSError`."""

    def close(self) -> None:
        """Close the file."""


def open_file(path: Path) -> int:
    """Return a descriptor of a plain file. Raises `OSError`; a pipe, a device or a folder is not opened."""
    check_plain(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_plain(os.fstat(descriptor))  # it may have been replaced since
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_plain(info: os.stat_result) -> None:
    """Raise `ArchiveError` unless this is a file."""
    if stat.S_ISDIR(info.st_mode):
        raise ArchiveError("a folder")
    if not stat.S_ISREG(info.st_mode):
        raise ArchiveError("not a file but a named pipe, a socket or a device")


def refusal(error: Exception) -> str:
    """Return why a file could not be read, without its path, which differs between machines."""
    known = {
        FileNotFoundError: "nothing there (a missing file, or a link to one)",
        PermissionError: "no permission to read it",
        NotADirectoryError: "a file",
        MemoryError: "more memory than there is was needed to read it",
    }
    if type(error) in known:
        return known[type(error)]
    if isinstance(error, ArchiveError):
        return str(error.strerror)
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return str(error)


@contextmanager
def one_member(kind: str) -> Iterator[None]:
    """Turn whatever a damaged member brings out of a library into an `ArchiveError`, so that the others are read."""
    try:
        yield
    except (ArchiveError, FileNotFoundError):
        raise
    except MemoryError as error:
        raise ArchiveError(refusal(error)) from None
    except Exception as error:  # zlib.error, LZMAError, EOFError, struct.error, RuntimeError, NotImplementedError, ...
        raise ArchiveError(f"damaged member of a {kind} archive: {error}") from None


def another_kind(head: bytes, kind: str) -> str:
    """Return what a file is that is named as an archive of one kind and is of another; empty where its bytes do not say."""
    if not head:
        return "empty file (0 bytes)"
    found = looks_like(head)
    if found in ("unknown data", f"{kind} archive"):
        return ""
    remedy = "; decompress it, or unpack it" if found.endswith("archive") else ""
    return f"not a {kind} archive: looks like {found}{remedy}"


def normal(name: str) -> str:
    """Return a member's name as a path in its plainest form: archives of ``.`` begin every name with ``./``."""
    return posixpath.normpath(name.replace("\\", "/"))
