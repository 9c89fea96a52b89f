"""Released weights of a detector: ``nullscope fetch --weights``, from the address that its authors publish.

A download that was cut off goes on where it stopped, as long as the server still has the same file. Where the hash of the file is
known it must have it; where it is not, the hash is shown, and `nullscope import-weights` records it.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nullscope.core.config import suggest
from nullscope.fetching.checks import CHUNK_BYTES, digests, disk_failure, readable, require_space, sole_writer
from nullscope.fetching.guide import WIDE, say
from nullscope.fetching.sources import AGAIN, FetchError
from nullscope.records.licences import Weights, weights

TIMEOUT_S = 30  # without a byte


def fetch_weights(name: str, folder: Path, *, dry_run: bool = False) -> None:
    """Bring the released weights ``name``, a detector or one of its files, into ``folder``, or say who has them on what terms.

    Raises `FetchError` if there are none of that name, or if the file did not come whole.
    """
    row, console = _released(name), Console(width=WIDE)
    size = readable(row.bytes) if row.bytes else "of a size that is not known"
    say(console, f"{row.name}: {Path(row.file).name or 'weights'}, {size}, trained on: {row.trained_on}; licence: {row.licence}")
    if row.note:
        say(console, f"To know: {row.note}")
    if not row.url:
        say(console, f"Nothing was fetched: no address that a program can rely on is published; get it by hand from {row.page}")
        return
    out = folder / Path(row.file).name
    if dry_run:
        say(console, f"Nothing was fetched: {row.url} would go to {out}")
        return
    with sole_writer(folder):
        if out.exists():
            found = _check(row, out)
        else:
            partial = out.with_name(f"{out.name}.part")
            _download(row, partial)
            found = _check(row, partial)
            partial.replace(out)
    say(console, f"{out}: SHA-256 {found}{'' if row.beginning else ', which nothing here can be compared with'}")
    if row.detector:
        say(console, f"Use it:\n  nullscope import-weights {row.detector} {out} --out models/{row.detector}_official")


def _released(name: str) -> Weights:
    """Return the row of a file, or of the one file that a detector has."""
    rows = [row for row in weights() if row.detector]
    found = [row for row in rows if row.name == name] or [row for row in rows if row.detector == name]
    if not found:
        known = sorted({row.name for row in rows})
        raise FetchError(f"no released weights of {name!r} are listed{suggest(name, known)}")
    if len(found) > 1:
        raise FetchError(f"{name} has several files: name one of {', '.join(row.name for row in found)}")
    return found[0]


def _download(row: Weights, partial: Path) -> None:
    """Bring ``partial`` up to the whole file. Raises `FetchError`; what came before stays."""
    import requests
    from tqdm import tqdm

    tag = partial.with_name(f"{partial.name}.etag")  # of the file that the partial one is a piece of
    begun = partial.stat().st_size if partial.exists() and tag.exists() else 0
    headers = {"Range": f"bytes={begun}-", "If-Range": tag.read_text(encoding="utf-8")} if begun else {}
    # The bytes as they lie there: a transfer that is packed on the way could not be continued.
    headers["Accept-Encoding"] = "identity"
    try:
        with requests.get(row.url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == 416:  # all of it is here
                return
            if answer.status_code not in (200, 206):
                raise FetchError(
                    f"{row.url}: expected the file, found status {answer.status_code}; look at {row.page}, or {AGAIN}"
                )
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise FetchError(f"{row.url}: expected the file, found a web page; get it by hand from {row.page}")
            begun = begun if answer.status_code == 206 else 0
            left = int(answer.headers.get("Content-Length", 0))
            require_space(partial.parent, left)
            tag.unlink(missing_ok=True)  # until the new one is written, nothing could be continued
            with (
                open(partial, "ab" if begun else "wb") as file,
                tqdm(total=begun + left or None, initial=begun, unit="B", unit_scale=True, desc=row.name, leave=False) as bar,
            ):
                if version := answer.headers.get("ETag", ""):
                    tag.write_text(version, encoding="utf-8")
                for chunk in answer.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
    except (requests.RequestException, OSError) as error:
        if told := disk_failure(error, partial):
            raise FetchError(told) from error
        kind = type(error).__name__
        raise FetchError(f"{row.url}: expected a connection, found none or one that broke ({kind}); {AGAIN}") from error
    tag.unlink(missing_ok=True)


def _check(row: Weights, file: Path) -> str:
    """Return the SHA-256 of a file. Raises `FetchError` if it is another file than the one that is known."""
    found = digests(file, row.name)
    if row.bytes not in (None, found.bytes) or not found.sha256.startswith(row.beginning):
        wanted = f"{row.bytes or 'any number of'} bytes and a SHA-256 that begins with {row.beginning or 'anything'}"
        told = f"{file}: expected {wanted}, found {found.bytes} bytes and {found.sha256}: this is another file"
        if file.suffix == ".part":
            file.unlink()
            raise FetchError(f"{told}; it was removed: look at {row.page}")
        raise FetchError(f"{told}; move it away, and the same command fetches it")
    return found.sha256
