"""Tars uploaded to the place that ``NULLSCOPE_SHARDS`` names (`tars`). An interrupted run is continued by the next one.

A tar is sent unless the place holds one of its name and size, recorded with its SHA-256. The size alone would say little, because
tars are padded to multiples of 10 kB. The record is written after the tars that it names, so after an interruption every recorded
tar is whole. Nothing is deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nullscope.core.contracts import SHARD_KINDS, SPLITS, ContractError
from nullscope.core.files import sha256
from nullscope.shards.tars import (
    MANIFEST,
    RECORD,
    Entry,
    address,
    arrived,
    entries,
    explained,
    file_system,
    read_record,
    sizes_of,
)

TOGETHER = 4  # tars sent at a time; s3fs holds each of up to 100 MB in memory
RECORD_SECONDS = 5.0  # an interrupted run sends again at most what it sent in these


@dataclass(frozen=True)
class Sent:
    """One tar of an upload."""

    bytes: int
    sent: bool  # False: it was there already


def folders(shards: Path) -> list[Path]:
    """Return the folders of ``data/shards``."""
    return [shards / kind / split for kind in SHARD_KINDS for split in SPLITS]


def total_bytes(shards: Path) -> int:
    """Return the size of all listed tars. Raises `ContractError` if one is missing on the disk."""
    return sum(_size(directory / name) for directory in folders(shards) for name in entries(directory))


def upload(shards: Path, place: str) -> Iterator[Sent]:
    """Bring all tars to ``place``; yield each. Raises `ContractError` if a tar on the disk is not what ``shards.json`` says."""
    for directory in folders(shards):
        yield from _upload_folder(directory, address(directory, place.rstrip("/")))


def _upload_folder(directory: Path, url: str) -> Iterator[Sent]:
    listed = list(entries(directory).values())
    with explained(url):
        fs, folder = file_system(url)
        sizes, record = _what_is_there(fs, folder)
    saved = 0.0
    for start in range(0, len(listed), TOGETHER):
        group = listed[start : start + TOGETHER]
        missing = [entry for entry in group if not arrived(entry, sizes, record)]
        noted = {entry.name: _checked(directory / entry.name, entry) for entry in missing}
        with explained(url):
            fs.put([str(directory / name) for name in noted], [f"{folder}/{name}" for name in noted])
            record |= noted
            if noted and time.monotonic() - saved > RECORD_SECONDS:
                fs.pipe_file(f"{folder}/{RECORD}", _as_json(record))
                saved = time.monotonic()
        yield from (Sent(_size(directory / entry.name), entry in missing) for entry in group)
    with explained(url):
        fs.pipe_file(f"{folder}/{RECORD}", _as_json({entry.name: record[entry.name] for entry in listed}))
        fs.put_file(str(directory / MANIFEST), f"{folder}/{MANIFEST}")


def _what_is_there(fs: Any, folder: str) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """Return the sizes and the record of a folder of the bucket, both empty at the first run."""
    if fs.protocol == "file" or "file" in fs.protocol:
        fs.makedirs(folder, exist_ok=True)  # not in a bucket: a misspelt name would create a new one
    try:
        sizes = sizes_of(fs, folder)
    except FileNotFoundError:
        return {}, {}
    return sizes, read_record(fs, folder) if RECORD in sizes else {}


def _checked(path: Path, entry: Entry) -> dict[str, Any]:
    if sha256(path) != entry.sha256:
        raise ContractError(f"{path} is not what {MANIFEST} lists; run `dvc checkout data/shards`, or `dvc repro shard`")
    return {"bytes": _size(path), "sha256": entry.sha256}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        raise ContractError(f"{path} is listed and not there; run `dvc pull`, or `dvc repro shard`") from None


def _as_json(record: dict[str, dict[str, Any]]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
