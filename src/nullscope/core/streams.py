"""Standard input, output and error as they may be: closed, full, of an encoding that cannot hold a name, a terminal.

A program runs in `guarded`. What it says of a file goes through `printable` where a person reads it; a machine reads it as it is.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

LOST = 3  # the status of a program whose results could not be written


@contextmanager
def guarded() -> Iterator[None]:
    """Run a program so that a stream that cannot be written ends it with a sentence and status `LOST`, not with a traceback.

    A name that the encoding cannot hold is written with escapes, and the rest goes on. A closed standard error is replaced by
    nothing. A reader that has gone (``| head``) ends the program in silence: it wanted no more.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the rest of the process)
    if sys.stdout is None:
        sys.exit("error: standard output is closed, so nothing can be said; send it to a file or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO) or error.filename is not None:
            raise
        _silence(sys.stdout)  # or Python would fail again when it ends
        if error.errno != errno.EPIPE:
            print(f"error: results were lost: {error.strerror.lower()}", file=sys.stderr)
        sys.exit(LOST)


def _silence(stream: TextIO) -> None:
    """Send what is left in a stream's buffer nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """Return a text for a person: control characters, line breaks, and what turns the direction of writing, as escapes.

    A name may hold what moves a terminal's cursor or writes over other lines.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text)


def holds_everything(stream: TextIO) -> bool:
    """Return whether a stream's encoding holds every character."""
    return (stream.encoding or "").lower().replace("-", "").replace("_", "") in ("utf8", "utf16", "utf32")


def lines(stream: TextIO | None) -> Iterator[str]:
    """Yield the names in a list on standard input: one a line, or with NUL between them (``find -print0``).

    A byte-order mark and the line ends of Windows are passed over, and UTF-16 (PowerShell) is read. Bytes that are not UTF-8
    stand in a name as `os.fsdecode` puts them there. Raises `ValueError` if standard input is closed.
    """
    if stream is None:
        raise ValueError("standard input is closed; expected a list of files on it, one a line")
    data = stream.buffer.read()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    for name in data.split(b"\0") if b"\0" in data else data.split(b"\n"):
        name = name.removesuffix(b"\r")
        if name.strip():
            yield os.fsdecode(name)
