"""Data sets of the Hugging Face hub: list, fetch, verify.

The hub's client finds the repository, authenticates (``HF_TOKEN``, ``HF_ENDPOINT``) and transfers. Its `hf_hub_download` is not
used: in huggingface_hub 2.4 it writes to a file of a random name and removes that on any failure, so that an archive of 41 GB
which breaks off at the end starts again from nothing. Here the bytes go into a partial file named after the expected content, and
the next run asks for the rest. A file gets its final name once its hash is the one that the hub lists.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from nullscope.fetching.checks import Digests, digests, require_space
from nullscope.fetching.hub_errors import explained
from nullscope.fetching.record import Origin, Record
from nullscope.fetching.sources import FetchError, Source


@dataclass(frozen=True)
class Remote:
    """A file of a repository, and what the hub says of its content."""

    path: str  # in the repository
    name: str  # below the target folder
    size: int  # bytes
    sha256: str | None  # of files in LFS
    blob: str | None  # git's SHA-1 of the others

    @property
    def expected(self) -> str:
        return f"sha-256 {self.sha256}" if self.sha256 else f"git blob {self.blob}"

    def found(self, content: Digests) -> str:
        return f"sha-256 {content.sha256}" if self.sha256 else f"git blob {content.blob}"

    def matches(self, content: Digests) -> bool:
        return content.bytes == self.size and self.found(content) == self.expected

    def partial(self, folder: Path) -> Path:
        """Return where the bytes go until all are there. If the file changes at the hub, this path changes too."""
        path = folder / self.name
        return path.with_name(f".{path.name}.{(self.sha256 or self.blob or '')[:12]}.partial")

    def begun(self, folder: Path) -> int:
        """Return how many bytes are there of a file whose transfer broke off."""
        partial = self.partial(folder)
        return partial.stat().st_size if partial.exists() else 0


@dataclass(frozen=True)
class Listing:
    """The files of a data set at one commit of its repository."""

    origin: Origin
    files: list[Remote]


def list_files(source: Source, only: tuple[str, ...], revision: str | None = None) -> Listing:
    """Ask the hub for the files of the data set, and return those that match ``only``, or all.

    Raises `FetchError` if the hub cannot be asked, refuses, or has no file that fits.
    """
    from huggingface_hub import HfApi

    with explained(source, revision or source.revision):
        api = HfApi(endpoint=_endpoint())
        info = api.dataset_info(source.repository, revision=revision or source.revision, files_metadata=True, timeout=60)
    remotes = [_remote(source, sibling) for sibling in info.siblings or [] if _fits(sibling.rfilename, source.files)]
    if not remotes:
        there = ", ".join(sorted(sibling.rfilename for sibling in info.siblings or [])[:5]) or "nothing"
        raise FetchError(
            f"{source.repository}@{info.sha}: expected files like {' and '.join(source.files)}, found {there}; the repository "
            "was laid out anew: name a commit of before with --revision"
        )
    for pattern in only:
        if not any(_fits(remote.path, [pattern]) for remote in remotes):
            raise FetchError(f"--only {pattern}: expected a pattern for one of {_names(remotes)}; found none that it fits")
    wanted = [remote for remote in remotes if not only or _fits(remote.path, only)]
    return Listing(Origin("huggingface", source.repository, info.sha), sorted(wanted, key=lambda remote: remote.name))


def fetch(source: Source, listing: Listing, folder: Path, *, verify: bool) -> int:
    """Bring the files of ``listing`` into ``folder``; return how many were missing. ``verify`` hashes known files again.

    Raises `FetchError`. Files that are complete stay, and so does what is there of the one under way.
    """
    record = Record.read(folder, listing.origin)
    try:
        missing = [remote for remote in listing.files if not _is_there(record, remote, verify=verify)]
    finally:
        record.write()  # digests of large files take minutes: those taken so far are kept
    require_space(folder, sum(remote.size - remote.begun(folder) for remote in missing))
    for number, remote in enumerate(missing, 1):
        label = f"[{number}/{len(missing)}] {remote.name}"
        with explained(source, listing.origin.revision):
            _transfer(listing.origin, remote, folder, label)
            _accept(record, remote)
            record.write()
    return len(missing)


def _is_there(record: Record, remote: Remote, *, verify: bool) -> bool:
    """Return whether a file is there. Raises `FetchError` if its content is not the hub's: it may be the user's own."""
    path = record.folder / remote.name
    if not path.exists():
        record.files.pop(remote.name, None)
        return False
    size = path.stat().st_size
    expected, found = f"{remote.size} bytes", f"{size} bytes"
    if size == remote.size:
        content = record.look(remote.name, again=verify)
        if remote.matches(content):
            return True
        expected, found = remote.expected, remote.found(content)
    record.files.pop(remote.name, None)
    raise FetchError(
        f"{path}: expected {expected}, found {found}: it is damaged, or not the file of {record.origin.repository}@"
        f"{record.origin.revision[:7]}; move it away, and the same command fetches it"
    )


def _transfer(origin: Origin, remote: Remote, folder: Path, label: str) -> None:
    """Append to the partial file what it lacks. A connection that broke is opened again if it had brought any bytes."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # The hub's own address, not the one that it redirects to: that one expires after an hour, and a large file may take longer.
    url = hf_hub_url(origin.repository, remote.path, repo_type="dataset", revision=origin.revision, endpoint=_endpoint())
    partial = remote.partial(folder)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if remote.begun(folder) > remote.size:
        partial.unlink()
    while True:
        begun = remote.begun(folder)
        try:
            with open(partial, "ab") as file:
                http_get(
                    url,
                    file,
                    resume_size=begun,
                    headers=build_hf_headers(),
                    expected_size=remote.size,
                    displayed_filename=label,
                )
            return
        except OSError:  # an answer of the hub, or the disk
            raise
        except Exception:  # the client retries some failures itself, but not a connection that was reset
            if remote.begun(folder) == begun:
                raise


def _accept(record: Record, remote: Remote) -> None:
    """Give a complete file its name if its hash is the hub's; otherwise keep it as ``.corrupt`` and raise `FetchError`."""
    partial, path = remote.partial(record.folder), record.folder / remote.name
    content = digests(partial, remote.name)
    if not remote.matches(content):
        aside = path.with_name(f"{path.name}.corrupt")
        os.replace(partial, aside)
        raise FetchError(
            f"{path}: expected {remote.expected}, found {remote.found(content)}: the bytes were changed on their way; they are "
            f"kept as {aside.name} and do not count; run the same command again, and if it repeats, try another network"
        )
    os.replace(partial, path)
    record.add(remote.name, content)


def _remote(source: Source, sibling) -> Remote:
    """Return one file of the hub's list. Raises `FetchError` if its name leads out of the folder."""
    path = PurePosixPath(sibling.rfilename)
    if path.is_absolute() or ".." in path.parts:
        raise FetchError(f"{source.repository}: expected file names below its root, found {sibling.rfilename!r}; do not use it")
    moved = next((folder for pattern, folder in source.into.items() if fnmatchcase(sibling.rfilename, pattern)), None)
    name = f"{moved}/{path.name}" if moved else str(path)
    lfs = sibling.lfs
    if lfs is None:
        return Remote(sibling.rfilename, name, sibling.size, None, sibling.blob_id)
    return Remote(sibling.rfilename, name, lfs.size, lfs.sha256, None)


def _fits(path: str, patterns: tuple[str, ...] | list[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _names(remotes: list[Remote]) -> str:
    names = [remote.path for remote in remotes]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")  # the client reads it too, but only when it is imported
