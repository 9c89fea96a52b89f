"""Zips: the directory at their end, and one member at a time."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from nullscope.archives.members import REPEATED, ArchiveError, Fault, Member, another_kind, normal, one_member, open_file
from nullscope.archives.split_zip import SplitZip, first_part

READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64, as Windows writes above 2 GB", 93: "Zstandard", 95: "xz", 98: "PPMd"}
HEAD = 512  # bytes that say what another file is


class Zip:
    """An open zip, in one part or in several."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` if it is no zip, or its directory is damaged."""
        descriptor = open_file(path)
        try:
            self.file = SplitZip(path) if first_part(path).exists() else zipfile.ZipFile(path)
        except Exception as error:  # BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, ValueError, ...
            why = another_kind(os.pread(descriptor, HEAD, 0), "zip")
            raise ArchiveError(why or f"damaged zip archive: {error}") from None
        finally:
            os.close(descriptor)
        self.names: dict[str, zipfile.ZipInfo] = {}
        self.members: dict[str, Member] = {}
        self.faults: list[Fault] = []
        for info in self.file.infolist():
            name = normal(info.filename)
            if info.is_dir():
                continue
            if name in self.names:
                self.faults.append(Fault(name, REPEATED))
            self.names[name], self.members[name] = info, Member(info.file_size, _why_not(info))

    def read(self, name: str) -> bytes:
        """Return the bytes of one member, no more than its size. Raises `OSError`."""
        info = self.names[name]
        with one_member("zip"):
            with self.file.open(info) as member:
                data = member.read(info.file_size)
            if len(data) != info.file_size:
                raise ArchiveError(f"damaged member of a zip archive: {len(data)} of {info.file_size} bytes are there")
            return data

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _why_not(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in READ:
        method = METHODS.get(info.compress_type, f"method {info.compress_type}")
        return f"not supported: compressed with {method}; unpack the archive"
    return ""
