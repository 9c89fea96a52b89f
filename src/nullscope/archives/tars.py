"""Tars: their headers, read once from one to the next, and one member at a time (POSIX pax; GNU tar's manual, "Standard Format").

Python's `tarfile` says nothing where a header in the middle is damaged and all members behind it are gone, and a negative size
sends it round for ever (CVE-2025-8194). So the walk from header to header is our own; what a header holds, `tarfile` reads.
"""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

from nullscope.archives.members import REPEATED, ArchiveError, Fault, Member, another_kind, normal, one_member, open_file

BLOCK = tarfile.BLOCKSIZE  # bytes
LONGEST_EXTENSION = 2**20  # bytes of a long name or of a pax header
PADDING = 2**20  # zeros behind the end that are passed over, to the next archive in the same file
LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
PAX_RECORD = re.compile(rb"(\d+) ([^=]+)=")
REFUSED = {
    tarfile.LNKTYPE: "a hard link to a file that the archive does not hold",
    tarfile.SYMTYPE: "a symbolic link in a tar: unpack the archive",
    tarfile.GNUTYPE_SPARSE: "a sparse file in a tar: unpack the archive",
    tarfile.CHRTYPE: "a device in a tar",
    tarfile.BLKTYPE: "a device in a tar",
    tarfile.FIFOTYPE: "a named pipe in a tar",
}


class Tar:
    """An open tar."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` if it is no tar. What is lost behind a damaged header is a fault."""
        self.offsets: dict[str, int] = {}
        self.members: dict[str, Member] = {}
        self.faults: list[Fault] = []
        self.descriptor = open_file(path)
        try:
            self.size = os.fstat(self.descriptor).st_size
            if not self.size:
                raise ArchiveError(another_kind(b"", "tar"))
            self._walk()
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> bytes:
        """Return the bytes of one member. Raises `OSError`."""
        size = self.members[name].size
        with one_member("tar"):
            data = os.pread(self.descriptor, size, self.offsets[name])
            if len(data) != size:
                raise ArchiveError(f"a tar archive that ends too early: {len(data)} of {size} bytes of the member")
            return data

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _walk(self) -> None:
        """Note all members, from header to header. Each one lies behind the one before, so it ends."""
        at, named, ended = 0, {}, False
        while header := self._header(at):
            if not any(header):
                at, ended = self._behind_zeros(at), True
                continue
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
                if info.size < 0:
                    raise tarfile.HeaderError("a negative size")
                start, ended = at + BLOCK, False
                end = start + self._length(info)
                if info.type in (*LONG_NAMES, *PAX):
                    if info.type != tarfile.XGLTYPE:  # what a global header says is of no use here
                        named |= self._extension(info, start)
                    at = end
                    continue
                if info.type == tarfile.GNUTYPE_SPARSE:
                    end += self._sparse_headers(header, start)
                if "size" in named:
                    end += _blocks(named["size"]) - _blocks(info.size)
                    info.size = named["size"]
            except (tarfile.HeaderError, ValueError) as error:
                self._damaged(at, error)
                return
            self._note(info, named, start, end)
            at, named = end, {}
        if not ended and self.members:
            self.faults.append(Fault("", "a tar archive without an end: members may be missing"))

    def _header(self, at: int) -> bytes:
        """Return the block at ``at``; nothing at the end of the file."""
        header = os.pread(self.descriptor, BLOCK, at)
        if 0 < len(header) < BLOCK:
            self._damaged(at, "it ends within a header")
            return b""
        return header

    def _damaged(self, at: int, why: object) -> None:
        """Note what is lost. Raises `ArchiveError` if that is all, since the file is then no tar, or nothing of one is left."""
        if not self.members:
            kind = another_kind(os.pread(self.descriptor, BLOCK, 0), "tar")
            raise ArchiveError(kind or f"damaged tar archive: {why}")
        lost = self.size - at
        self.faults.append(Fault("", f"damaged tar archive: {why} at byte {at}; {lost} bytes behind it are not read"))

    def _behind_zeros(self, at: int) -> int:
        """Return where the zeros end that stand at ``at``: behind the file, or where another archive begins."""
        end = min(self.size, at + PADDING)
        zeros = os.pread(self.descriptor, end - at, at)
        filled = len(zeros) - len(zeros.lstrip(b"\0"))
        if filled == len(zeros):
            if end < self.size:
                self.faults.append(Fault("", f"{self.size - end} bytes behind the end of the tar archive are not read"))
            return self.size
        return at + filled // BLOCK * BLOCK

    def _length(self, info: tarfile.TarInfo) -> int:
        return 0 if info.type in WITHOUT_DATA else _blocks(info.size)

    def _extension(self, info: tarfile.TarInfo, start: int) -> dict[str, object]:
        """Return what a header says of the next one: its name, its target, its size."""
        if info.size > LONGEST_EXTENSION:
            raise ValueError(f"an extended header of {info.size} bytes")
        data = os.pread(self.descriptor, info.size, start)
        if info.type in LONG_NAMES:
            text = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            return {"path" if info.type == tarfile.GNUTYPE_LONGNAME else "linkpath": text}
        return _pax(data)

    def _sparse_headers(self, header: bytes, start: int) -> int:
        """Return the bytes of the blocks that go on with the map of a sparse file of GNU tar."""
        more, blocks = header[482], 0
        while more and (block := os.pread(self.descriptor, BLOCK, start + blocks * BLOCK)):
            more, blocks = block[504] if len(block) == BLOCK else 0, blocks + 1
        return blocks * BLOCK

    def _note(self, info: tarfile.TarInfo, named: dict[str, object], start: int, end: int) -> None:
        """Note a member under its name."""
        path = str(named.get("path", info.name))
        if info.type == tarfile.DIRTYPE or (info.type == tarfile.AREGTYPE and path.endswith("/")):
            return
        name, reason = normal(path), REFUSED.get(info.type, "")
        if any(key.startswith("GNU.sparse.") for key in named):
            name, reason = normal(str(named.get("GNU.sparse.name", path))), REFUSED[tarfile.GNUTYPE_SPARSE]
        if name in self.members:
            self.faults.append(Fault(name, REPEATED))
        target = normal(str(named.get("linkpath", info.linkname)))
        if info.type == tarfile.LNKTYPE and target in self.offsets:
            self.members[name], self.offsets[name] = self.members[target], self.offsets[target]
            return
        if end > self.size and not reason:
            reason = f"a tar archive that ends too early: {max(0, self.size - start)} of {info.size} bytes of the member"
        self.members[name], self.offsets[name] = Member(info.size, reason), start


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _pax(data: bytes) -> dict[str, object]:
    """Return the records of a pax header by their keywords. Raises `ValueError` if they are damaged."""
    records: dict[str, object] = {}
    at = 0
    while at < len(data) and data[at]:
        found = PAX_RECORD.match(data, at)
        length = int(found[1][:9]) if found else 0
        if not found or at + length > len(data) or length <= found.end() - at:
            raise ValueError("a damaged pax header")
        key = found[2].decode("utf-8", "surrogateescape")
        value = data[found.end() : at + length - 1].decode("utf-8", "surrogateescape")
        if key == "size":
            if not value.isdecimal() or len(value) > 18:
                raise ValueError("a damaged pax header")
            records[key] = int(value)
        else:
            records[key] = value
        at += length
    return records
