"""Data sets of Kaggle, fetched by its client `kagglehub`, which nothing else in the package needs.

The client fetches one archive and unpacks it in its cache. Only there does it continue a transfer that broke off: with
``output_dir`` (kagglehub 1.0) it refuses a folder that is not empty. So its cache is put inside the target folder, and the files
are moved to their places afterwards. Kaggle publishes no checksums: those in ``fetched.json`` are of the files that came.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from nullscope.fetching.checks import digests, disk_failure
from nullscope.fetching.record import Origin, Record
from nullscope.fetching.sources import AGAIN, FetchError, Source

CACHE = ".kagglehub"
CACHE_VARIABLE = "KAGGLEHUB_CACHE"


def origin(source: Source) -> Origin:
    """Return what the record of a folder says of a data set of Kaggle."""
    return Origin("kaggle", source.repository or "", source.revision or "")


def fetch(source: Source, folder: Path, *, verify: bool) -> tuple[int, int]:
    """Bring the data set into ``folder``; return how many files it has, and how many of them were not there.

    Raises `FetchError`, also where `kagglehub` is not installed and would be needed.
    """
    record = Record.read(folder, origin(source))
    absent = [name for name in record.files if not (folder / name).exists()]
    _check(record, set(absent), verify=verify)
    if record.files and not absent:
        shutil.rmtree(folder / CACHE, ignore_errors=True)  # of a run that was killed at its very end
        return len(record.files), 0
    came = _download(source, folder / CACHE)
    _note(record, came)
    moved = _move(record, came)
    shutil.rmtree(folder / CACHE)
    return len(record.files), moved


def _check(record: Record, absent: set[str], *, verify: bool) -> None:
    """Raise `FetchError` if a file was changed since it was fetched."""
    names = [name for name in record.files if name not in absent and (verify or record.known(name) is None)]
    for name in tqdm(names, desc="checking", unit="file", delay=2, leave=False):
        before = record.files[name]["sha256"]
        found = digests(record.folder / name)
        if found.sha256 != before:
            raise FetchError(
                f"{record.folder / name}: expected sha-256 {before}, found {found.sha256}: it was changed since it was fetched; "
                "move it away, and the same command fetches it"
            )
        record.add(name, found)
    if names:
        record.write()


def _download(source: Source, cache: Path) -> Path:
    """Return the folder in which `kagglehub` has unpacked the data set."""
    with _explained(source, cache), _cache_at(cache):
        try:
            import kagglehub
        except ImportError:
            raise FetchError(
                f"{source.repository}: expected the client of Kaggle, found no package kagglehub; install it with "
                "`pip install 'nullscope[kaggle]'`"
            ) from None
        came = Path(kagglehub.dataset_download(f"{source.repository}/versions/{source.revision}"))
    if cache.absolute() not in came.absolute().parents:  # on Kaggle's and Colab's own machines it is a shared mount
        raise FetchError(f"{source.repository} is on this machine already, found at {came}; use that folder as dataset.root")
    return came


def _note(record: Record, came: Path) -> None:
    """Write the hashes of what came to the record before anything is moved, so that the next run can continue a killed one."""
    paths = sorted(path for path in came.rglob("*") if path.is_file())
    if not paths and not record.files:
        raise FetchError(f"{record.origin.repository}: expected files, found an empty archive; look at its page on Kaggle")
    for path in tqdm(paths, desc="checking", unit="file", delay=2, leave=False):
        record.add(path.relative_to(came).as_posix(), digests(path), path)
    record.write()


def _move(record: Record, came: Path) -> int:
    """Move the files to their places; return how many were missing. Raises `FetchError` if a file of other content is there."""
    moved = 0
    for path in sorted(path for path in came.rglob("*") if path.is_file()):
        name = path.relative_to(came).as_posix()
        target, expected = record.folder / name, record.files[name]["sha256"]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            moved += 1
        elif (found := digests(target).sha256) != expected:
            raise FetchError(f"{target}: expected sha-256 {expected} or no file, found {found}; move it away and {AGAIN}")
        record.add(name, record.look(name, again=False))
    record.write()
    return moved


@contextmanager
def _cache_at(folder: Path) -> Iterator[None]:
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE_VARIABLE]
        else:
            os.environ[CACHE_VARIABLE] = before


@contextmanager
def _explained(source: Source, cache: Path) -> Iterator[None]:
    """Raise `FetchError`, one sentence, in place of what the client or the disk raises."""
    try:
        yield
    except FetchError:
        raise
    except Exception as error:  # the client lets through what requests, zipfile and the disk raise
        raise FetchError(_explain(source, cache, error)) from error


def _explain(source: Source, cache: Path, error: Exception) -> str:
    handle, status = source.repository, getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"{handle}: expected access, found {status}: Kaggle wants an account; accept the terms on the page of the data set "
            "and set KAGGLE_API_TOKEN, or put kaggle.json into ~/.kaggle"
        )
    if status == 404:
        return f"{handle}: expected version {source.revision}, found none: it was moved or removed; look for its page on Kaggle"
    if status is not None:
        return f"{handle}: expected an answer of Kaggle, found {status}: it is busy or out of order; in a while, {AGAIN}"
    if told := disk_failure(error, cache):
        return told
    first = (str(error).splitlines() or [""])[0]
    if not isinstance(error, OSError):  # what requests raises is one
        return f"{handle}: expected a whole archive, found another ({first}); remove {cache} and run the same command again"
    return f"{handle}: expected a connection to Kaggle, found none or one that broke ({type(error).__name__}: {first}); {AGAIN}"
