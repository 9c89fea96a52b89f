"""Whole file or none: everything this package writes goes beside its place first and is renamed into it."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a partial path beside ``path``; on success rename it to ``path``, on an error remove it.

    Two processes that write the same file do not meet; what a killed one left behind goes away at the next try.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; on success it takes the place of ``path``, on an error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        replace_directory(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_directory(finished: Path, path: Path) -> None:
    """Put a finished folder at ``path``; what lay there, or beside it after a kill, is removed."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if path.exists():
            os.replace(path, old)  # a kill inside rmtree would leave half of the old folder at its place
        shutil.move(finished, path)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Hard-link what ``source`` leads to; copy it where that cannot be done (another file system, or one without links)."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _sweep(path: Path) -> None:
    """Remove what killed writers of ``path`` left beside it, where DVC would take it for a part of the folder."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        owner = leftover.name.split(".")[-2]
        if owner.isdigit() and not _alive(int(owner)):
            leftover.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def is_out_of_space(error: BaseException) -> bool:
    """Return whether ``error`` says that the disk is full, or that the user's share of it (the quota) is."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys. Raises `ValueError` on NaN or infinity: neither is JSON."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(files: Iterable[Path], root: Path) -> str:
    """Return one SHA-256 over the names below ``root`` and the contents of ``files``, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()
