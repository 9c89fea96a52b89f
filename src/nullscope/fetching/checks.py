"""What makes a download trustworthy: digests of the bytes, room on the disk, and one writer per folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from nullscope.core.files import is_out_of_space
from nullscope.fetching.sources import AGAIN, FetchError

CHUNK_BYTES = 1 << 20
LOCK = ".fetch.lock"


@dataclass(frozen=True)
class Digests:
    """Size and hashes of a file."""

    bytes: int
    sha256: str
    blob: str  # git's SHA-1 of the content, which the hub gives for files that are not in LFS


def digests(path: Path, label: str = "") -> Digests:
    """Return the digests of the file's bytes, with a progress bar where that takes over two seconds."""
    size = path.stat().st_size
    sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with (
        open(path, "rb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=f"checking {label}", delay=2, leave=False) as bar,
    ):
        while chunk := file.read(CHUNK_BYTES):
            sha256.update(chunk)
            blob.update(chunk)
            bar.update(len(chunk))
    return Digests(size, sha256.hexdigest(), blob.hexdigest())


def require_space(folder: Path, needed: int) -> None:
    """Raise `FetchError` if the disk of ``folder`` has less than ``needed`` bytes free."""
    free = free_bytes(folder)
    if free < needed:
        raise FetchError(
            f"{folder}: expected {readable(needed)} free for what is still to be fetched, found {readable(free)}; make room, "
            "name another disk with --to, or fetch less with --only"
        )


def disk_failure(error: Exception, place: object) -> str | None:
    """Return the message for an error of the disk while ``place`` was being fetched; None for any other error."""
    if is_out_of_space(error):
        return f"{place}: expected room on the disk, found it full; make room and {AGAIN}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: expected a place to write to, found: {error.strerror}; name another with --to"
    return None


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that ``folder`` is or will be on."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def readable(count: int) -> str:
    """Return a number of bytes in decimal units, as the hub and Kaggle write them: ``41.3 GB``."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{size:.3g} {units[0]}"


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other fetches out of ``folder``, which is created if need be: two fetches would append to the same partial file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise FetchError(f"{folder}: another `nullscope fetch` is writing there; wait for it, or name another folder") from None
    except OSError as error:
        raise FetchError(f"{folder}: expected a folder to write to, found: {error.strerror}; name another with --to") from None
    try:
        yield
    finally:
        lock.release()
