"""One hash of a folder, for tests that compare what two runs leave."""

from __future__ import annotations

from pathlib import Path

from nullscope.core.files import content_sha256


def tree_sha256(folder: Path) -> str:
    """A hash of the names and the contents of all files of a folder."""
    return content_sha256(sorted(file for file in folder.rglob("*") if file.is_file()), folder)
