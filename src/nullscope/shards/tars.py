"""Where the tars of a folder of shards lie, and opening them: on the disk, or at ``NULLSCOPE_SHARDS``.

DVC keeps ``data/shards`` on the disk. On a cluster the tars lie in a bucket: with ``NULLSCOPE_SHARDS=s3://bucket/prefix`` (or any
other address that fsspec opens, a mounted folder among them) the bytes of ``data/shards/<kind>/<split>/<name>.tar`` are streamed
from ``<prefix>/<kind>/<split>/<name>.tar``, without a copy on the disk. The place is no parameter because it changes no result.
The list of the tars and their hashes, ``shards.json``, is always the local one that DVC tracks. Credentials and endpoints are set
as fsspec and the store want it: ``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``FSSPEC_S3_ENDPOINT_URL``, ...

Before the first tar is opened, the names of all tars are checked and, where `nullscope upload-shards` has written its record,
their versions and sizes. The SHA-256 of a tar is checked when it has been read to its end. The bytes of a tar that is read in
part are not checked.

fsspec serves its requests in a thread, and a forked process does not inherit threads. So the process that reads a file also opens
it, and asks fsspec for a file system of its own.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nullscope.core.contracts import MAY_BE_EMPTY, ContractError

MANIFEST = "shards.json"
RECORD = "uploaded.json"  # beside the tars in the bucket: name -> bytes and SHA-256 of those that arrived whole
BLOCK = 8 * 2**20  # bytes of one request; what a reader holds
SHOWN = 5  # names listed in an error


class StoreError(ValueError):
    """The place where the tars lie does not answer as it should."""


@dataclass(frozen=True)
class Entry:
    """What ``shards.json`` says of one tar."""

    name: str
    samples: int
    sha256: str


def entries(directory: Path) -> dict[str, Entry]:
    """Return what ``shards.json`` lists, by name. Raises `ContractError` if it cannot be read."""
    path = directory / MANIFEST
    try:
        info = path.stat()
        return _parsed(path, info.st_mtime_ns, info.st_size)
    except (OSError, ValueError, KeyError, TypeError):
        raise ContractError(f"{directory}: no readable {MANIFEST}; run `dvc repro shard`, or `dvc pull`") from None


@functools.lru_cache(maxsize=8)  # a worker asks once per tar
def _parsed(path: Path, mtime_ns: int, size: int) -> dict[str, Entry]:
    listed = json.loads(path.read_text(encoding="utf-8"))["shards"]
    return {entry["name"]: Entry(entry["name"], entry["samples"], entry["sha256"]) for entry in listed}


def remote_root() -> str | None:
    """Return the address below which the tars lie, without a slash at its end; None where they lie on the disk."""
    return os.environ.get("NULLSCOPE_SHARDS", "").strip().rstrip("/") or None


def require(directory: Path) -> None:
    """Raise `ContractError` unless every tar that ``shards.json`` lists is there, in the listed version as far as sizes tell.

    It must list some, but for a split that may be empty.
    """
    listed, place = entries(directory), remote_root()
    if not listed and directory.name in MAY_BE_EMPTY:
        return
    if place is None:
        missing = [name for name in listed if not (directory / name).is_file()]
        if missing or not listed:
            raise ContractError(f"{directory}: expected {len(listed)} tars, missing {missing or 'all'}; run `dvc repro shard`")
        return
    url = address(directory, place)
    with explained(url):
        fs, folder = file_system(url)
        sizes = sizes_of(fs, folder)
        record = read_record(fs, folder) if RECORD in sizes else {}
    missing = [name for name in listed if name not in sizes]
    other = [name for name in listed if name in sizes and name in record and not arrived(listed[name], sizes, record)]
    if missing or other or not listed:
        raise ContractError(
            f"{url}: expected the {len(listed)} tars of {directory / MANIFEST}; missing: {_some_names(missing)}; "
            f"of another version or cut off: {_some_names(other)}; run `nullscope upload-shards {place}` where the tars are"
        )


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Yield a tar, open for reading from its start.

    Of a tar that does not lie on the disk, the rest is read at the end of the block, and `ContractError` is raised if its bytes
    are not those that ``shards.json`` lists. Nothing is checked if the block is left early.
    """
    place = remote_root()
    if place is None:
        with open(path, "rb") as file:
            yield file
        return
    url, expected = f"{address(path.parent, place)}/{path.name}", entries(path.parent)[path.name]
    with explained(url):
        fs, where = file_system(url)
        file = fs.open(where, "rb", block_size=BLOCK, cache_type="readahead")
    stream = _Hashed(file, url)
    try:
        yield stream
        stream.verify(expected)
    except StoreError:
        raise
    except Exception:  # "another tar than the listed one" says more than "a bad header", so it is raised first
        stream.verify(expected)
        raise
    finally:
        file.close()


class _Hashed(io.RawIOBase):
    """A file that hashes what is read from it."""

    def __init__(self, file: IO[bytes], url: str) -> None:
        self.file, self.url, self.digest, self.count = file, url, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with explained(self.url):
            data = self.file.read(size)
        self.digest.update(data)
        self.count += len(data)
        return data

    def verify(self, expected: Entry) -> None:
        """Read the rest. Raises `ContractError` unless the whole is what is ``expected``."""
        while self.read(BLOCK):
            pass
        found = self.digest.hexdigest()
        if found != expected.sha256:
            raise ContractError(
                f"{self.url}: expected the SHA-256 {expected.sha256[:16]}... of {MANIFEST}, found {found[:16]}... "
                f"in {self.count} bytes: changed, cut off or of another version; delete it there, run `nullscope upload-shards`"
            )


def address(directory: Path, place: str) -> str:
    """Return where the tars of ``<...>/<kind>/<split>`` lie below ``place``."""
    return "/".join([place, *directory.parts[-2:]])


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of this process for ``url``, and the path in it. What others change there is seen at once."""
    import fsspec

    return fsspec.core.url_to_fs(url, use_listings_cache=False)


def sizes_of(fs: Any, folder: str) -> dict[str, int]:
    """Return name -> bytes of all files of a folder. Raises `FileNotFoundError` if there is none."""
    return {info["name"].rsplit("/", 1)[-1]: info["size"] for info in fs.ls(folder, detail=True) if info["type"] == "file"}


def read_record(fs: Any, folder: str) -> dict[str, dict[str, Any]]:
    """Return what `nullscope upload-shards` noted of the tars that it brought there: name -> ``bytes`` and ``sha256``."""
    return json.loads(fs.cat_file(f"{folder}/{RECORD}"))


def arrived(entry: Entry, sizes: dict[str, int], record: dict[str, dict[str, Any]]) -> bool:
    """Return whether a tar lies there in the version and the size that were recorded of it."""
    return record.get(entry.name) == {"bytes": sizes.get(entry.name), "sha256": entry.sha256}


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what a store says into a `StoreError` with a remedy. Every store has exceptions of its own, so all are caught."""
    try:
        yield
    except ImportError as error:
        raise StoreError(f"{url}: {error}; `pip install 'nullscope[s3]'` for s3://, the package it names for others") from None
    except FileNotFoundError as error:
        raise StoreError(
            f"{url}: nothing there ({error}); correct the address (NULLSCOPE_SHARDS), or create the bucket and run "
            "`nullscope upload-shards`"
        ) from None
    except PermissionError as error:
        raise StoreError(
            f"{url}: no permission ({error}); the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...) must allow to list and read"
        ) from None
    except Exception as error:
        raise StoreError(
            f"{url}: {type(error).__name__}: {error}; check the address, the endpoint (FSSPEC_S3_ENDPOINT_URL), the credentials"
        ) from error


def _some_names(names: Iterable[str]) -> str:
    ordered = list(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return (", ".join(ordered[:SHOWN]) or "none") + more
