"""Zips in several parts, as GenImage is published: ``x.z01``, ``x.z02``, ..., ``x.zip`` (Info-ZIP's ``zip -s``).

Python's `zipfile` refuses them. They differ from a whole zip in three ways: the file goes on from part to part; the directory
gives the place of a member within the part where it starts; and the records at the end number the parts. So `zipfile` is given
the parts as one file whose end records say "one part", and the length of the parts before is added to every place.
(PKWARE's APPNOTE.TXT 6.3, sections 4.3.14 to 4.3.16 and 8.5.)
"""

from __future__ import annotations

import io
import struct
import zipfile
from itertools import accumulate, count
from pathlib import Path
from typing import Any

END = struct.Struct("<4s4H2LH")  # end of central directory, without its comment
LOCATOR = struct.Struct("<4sLQL")
END_64 = struct.Struct("<4sQ2H2L4Q")
LONGEST_COMMENT = 65_535


def first_part(path: Path) -> Path:
    """Return the name of the first part of a split zip whose last part is ``path``."""
    return path.with_suffix(".z01")


class SplitZip(zipfile.ZipFile):
    """A split zip, opened for reading by its last part, ``x.zip``. Raises `zipfile.BadZipFile` if a part is missing."""

    def __init__(self, path: Path) -> None:
        parts = [*_numbered(path), path]
        starts = [0, *accumulate(part.stat().st_size for part in parts)]
        self.joined = _JoinedParts(parts, starts)
        try:
            self.joined.patch = _end_as_of_one_part(self.joined, starts, path)
            super().__init__(self.joined)
            for info in self.infolist():
                if info.volume >= len(parts):
                    raise zipfile.BadZipFile(f"a member lies in part {info.volume + 1}, there are {len(parts)}")
                info.header_offset += starts[info.volume]
                info.volume = 0
            self._end_members()
        except BaseException:
            self.joined.close()
            raise

    def _end_members(self) -> None:
        """Set where every member ends at the latest: newer versions of `zipfile` refuse one that overlaps the next."""
        end = self.start_dir
        for info in sorted(self.infolist(), key=lambda info: info.header_offset, reverse=True):
            if hasattr(info, "_end_offset"):
                info._end_offset = end
            end = info.header_offset

    def close(self) -> None:
        """Close all parts."""
        super().close()
        self.joined.close()


def _numbered(path: Path) -> list[Path]:
    """Return the parts before the last one, as many as there are."""
    parts = []
    for number in count(1):
        part = path.with_suffix(f".z{number:02d}")
        if not part.exists():
            return parts
        parts.append(part)
    raise AssertionError("unreachable")


class _JoinedParts(io.RawIOBase):
    """Several files read as one, in which `patch` takes the place of the last bytes."""

    def __init__(self, parts: list[Path], starts: list[int]) -> None:
        self.files = [open(part, "rb") for part in parts]  # noqa: SIM115 (closed by `close`)
        self.starts, self.size, self.at, self.patch = starts, starts[-1], 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence] + offset
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view, patched = memoryview(buffer).cast("B"), self.size - len(self.patch)
        if self.at >= self.size or not len(view):
            return 0
        if self.at >= patched:
            data = self.patch[self.at - patched :][: len(view)]
        else:
            part = next(number for number, start in enumerate(self.starts[1:]) if self.at < start)
            here = min(self.starts[part + 1], patched) - self.at
            self.files[part].seek(self.at - self.starts[part])
            data = self.files[part].read(min(len(view), here))
        view[: len(data)] = data
        self.at += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        wanted = max(0, self.size - self.at) if size is None or size < 0 else size
        pieces = []
        while wanted:
            piece = super().read(wanted)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        for file in self.files:
            file.close()
        super().close()


def _end_as_of_one_part(joined: _JoinedParts, starts: list[int], path: Path) -> bytes:
    """Return the last bytes of the archive, with the numbers of parts and the place of the directory as a whole zip has them."""
    tail_start = max(0, joined.size - LONGEST_COMMENT - END.size - LOCATOR.size)
    joined.seek(tail_start)
    tail = bytearray(joined.read())
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + END.size > len(tail):
        raise zipfile.BadZipFile("the end of the directory is missing")
    _, part, directory_part, _, total, size, offset, comment = END.unpack_from(tail, at)
    locator = at - LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, end_part, end_offset, parts = LOCATOR.unpack_from(tail, locator)
        _check_parts(parts - 1, starts, path)
        place = starts[end_part] + end_offset
        joined.seek(place)
        signature, length, made, needed, _, directory_part, _, total, size, offset = END_64.unpack(joined.read(END_64.size))
        tail, tail_start, at = _reach_back(joined, tail, tail_start, place, at)
        moved = starts[directory_part] + offset
        END_64.pack_into(tail, place - tail_start, signature, length, made, needed, 0, 0, total, total, size, moved)
        LOCATOR.pack_into(tail, at - LOCATOR.size, b"PK\6\7", 0, place, 1)
        END.pack_into(tail, at, b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, comment)
    else:
        _check_parts(part, starts, path)
        END.pack_into(tail, at, b"PK\5\6", 0, 0, total, total, size, starts[directory_part] + offset, comment)
    return bytes(tail)


def _reach_back(joined: _JoinedParts, tail: bytearray, tail_start: int, place: int, at: int) -> tuple[bytearray, int, int]:
    """Return the tail from ``place`` on if it does not reach back that far, with its start and the place of `END` in it."""
    if place >= tail_start:
        return tail, tail_start, at
    joined.seek(place)
    return bytearray(joined.read()), place, at + tail_start - place


def _check_parts(last: int, starts: list[int], path: Path) -> None:
    if last != len(starts) - 2:
        raise zipfile.BadZipFile(f"expected {last} parts before it ({path.stem}.z01 and so on), found {len(starts) - 2}")
