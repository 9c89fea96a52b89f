"""The inventory: path and SHA-256 of every file of a data set, for DVC to depend on in place of the folder.

DVC refuses folders that hold names outside UTF-8, and is slow on a million files outside the project. This list is made quickly
the second time, because hashes are remembered in a local SQLite file by absolute path, size, modification time and inode. The
list does not depend on that file or on the machine: equal folders give equal lists.
"""

from __future__ import annotations

import csv
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from nullscope.archives.members import check_plain, refusal
from nullscope.archives.reading import archive_of, check_size, is_archive
from nullscope.core.files import replacing, sha256
from nullscope.sources.dataset import DatasetParams
from nullscope.sources.folders import Ignored, Refused
from nullscope.sources.survey import unopened

CHUNK = 512  # files hashed between two transactions
SHA256_BYTES = 32
LOCK_WAIT_S = 30
SETTLED_NS = 2 * 10**9  # a file written twice within a clock tick keeps its time, so younger ones are not remembered
TABLE = """CREATE TABLE IF NOT EXISTS hash_1
    (path BLOB PRIMARY KEY, size INT, mtime_ns INT, inode INT, sealed BLOB NOT NULL) WITHOUT ROWID"""
LOOKUP = "SELECT sealed FROM hash_1 WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?"
REMEMBER = "REPLACE INTO hash_1 VALUES (?, ?, ?, ?, ?)"
# SQLite's primary codes of a sound file that cannot be used now; every other error is damage.
UNUSABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
}

T = TypeVar("T")
Key = tuple[bytes, int, int, int]  # absolute path, size, mtime_ns, inode


def build_inventory(
    params: DatasetParams, *, path: Path, cache_path: Path, workers: int, progress: Callable[[int], None] = lambda files: None
) -> dict[str, int]:
    """Write ``source, sha256, reason`` of every file of the data set, found or refused, in their order; return the counts.

    An archive is one file, and a manifest too. A refused file has a reason and no hash. Memory does not grow with the number of
    files. ``progress`` is called with the size of every chunk that is done. Raises `DatasetError` if the root is no folder.
    """
    root, counts = params.folder, {"files": 0, "refused": 0, "hashed": 0}
    items = _files(params)
    with (
        replacing(path) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
        closing(HashCache(cache_path)) as cache,
        ThreadPoolExecutor(workers) as pool,  # threads: hashlib and the disk release Python's lock
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "sha256", "reason"))
        for chunk in iter(lambda: list(islice(items, CHUNK)), []):
            found = [os.path.join(root, item) for item in chunk if isinstance(item, str)]
            answers = iter(_hashes(found, params.max_pixels, cache, pool, counts))
            for item in chunk:
                source, (digest, reason) = (item, next(answers)) if isinstance(item, str) else (item.source, ("", item.reason))
                writer.writerow((source, digest, reason))
                counts["refused" if reason else "files"] += 1
            progress(len(chunk))
    return counts


def _files(params: DatasetParams) -> Iterator[str | Refused]:
    """Yield the files that the data set lies in, relative to its root. An archive is one file, however many rows name it."""
    if params.manifest:
        yield params.manifest
    last = None
    for item in unopened(params):
        if isinstance(item, Refused):
            yield item
        elif not isinstance(item, Ignored):
            file = os.fspath(archive_of(Path(item.source)))
            if file != last:
                yield file
            last = file


class HashCache:
    """Remembered hashes. Several processes may share the file; losing it costs nothing but time.

    A damaged file is replaced by an empty one. If the file cannot be used (no permission, read-only or full disk, locked for
    half a minute), nothing is remembered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self._attempt(lambda: None, None)

    def get(self, keys: Sequence[Key]) -> dict[Key, str]:
        """Return the hashes of those files that have not changed since `put`."""
        return self._attempt(lambda: self._lookup(keys), {})

    def put(self, hashes: dict[Key, str]) -> None:
        """Remember hashes, in one transaction."""
        self._attempt(lambda: self._remember(hashes), None)

    def close(self) -> None:
        """Close the file."""
        if self.connection is not None:
            self.connection.close()

    def _lookup(self, keys: Sequence[Key]) -> dict[Key, str]:
        rows = ((key, self.connection.execute(LOOKUP, key).fetchone()) for key in keys)
        return {key: row[0][:SHA256_BYTES].hex() for key, row in rows if row and _is_intact(key, row[0])}

    def _remember(self, hashes: dict[Key, str]) -> None:
        with self.connection:
            self.connection.executemany(REMEMBER, [(*key, _packed(key, bytes.fromhex(digest))) for key, digest in hashes.items()])

    def _attempt(self, action: Callable[[], T], otherwise: T) -> T:
        """Return what ``action`` returns; ``otherwise`` if the file cannot be opened or the action fails."""
        try:
            if self.connection is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.connection = sqlite3.connect(self.path, timeout=LOCK_WAIT_S)
                self.connection.execute(TABLE)
            return action()
        except OSError:
            return otherwise
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where damage has reached a name in the schema
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in UNUSABLE:
                self.close()
                self.connection = None
                with suppress(OSError):
                    self.path.unlink()
            return otherwise


def _packed(key: Key, digest: bytes) -> bytes:
    """Return the hash followed by a checksum: SQLite does not notice a flipped bit, which would make a wrong inventory."""
    return digest + zlib.crc32(repr((key, digest)).encode()).to_bytes(4, "big")


def _is_intact(key: Key, value: object) -> bool:
    return isinstance(value, bytes) and value == _packed(key, value[:SHA256_BYTES])


def _hashes(
    paths: list[str], max_pixels: int, cache: HashCache, pool: ThreadPoolExecutor, counts: dict[str, int]
) -> list[tuple[str, str]]:
    """Return (hash, reason), one of them empty, of every file; hash in threads what the cache does not know."""
    keys = list(pool.map(partial(_key, max_pixels=max_pixels), paths))
    known = cache.get([key for key in keys if not isinstance(key, str)])
    missing = [key for key in keys if not isinstance(key, str) and key not in known]
    fresh = dict(zip(missing, pool.map(_hash, missing), strict=True))
    cache.put({key: digest for key, (digest, _) in fresh.items() if digest and _is_settled(key)})
    counts["hashed"] += len(missing)
    return [("", key) if isinstance(key, str) else fresh.get(key) or (known[key], "") for key in keys]


def _key(path: str, max_pixels: int | None = None) -> Key | str:
    """Return the key under which a file's hash is remembered, or why the file cannot be read, in the words of the index."""
    try:
        info = os.stat(path)
        check_plain(info)
        check_size(info.st_size, None if is_archive(path) else max_pixels)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        return refusal(error)
    return os.fsencode(os.path.abspath(path)), info.st_size, info.st_mtime_ns, info.st_ino


def _hash(key: Key) -> tuple[str, str]:
    try:
        return sha256(Path(os.fsdecode(key[0]))), ""
    except OSError as error:
        return "", refusal(error)


def _is_settled(key: Key) -> bool:
    """Return whether the file is still the one whose key was taken before it was hashed, and old enough to trust its time."""
    path, _, mtime_ns, _ = key
    return _key(os.fsdecode(path)) == key and time.time_ns() - mtime_ns > SETTLED_NS
