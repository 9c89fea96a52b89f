"""``fetched.json``: what was fetched into a folder and from where, so that a second run knows what is there.

A file counts as verified while its size and time of change are those it had when its digest was taken.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nullscope.core.files import write_json
from nullscope.fetching.checks import Digests, digests
from nullscope.fetching.sources import FetchError

NAME = "fetched.json"


@dataclass(frozen=True)
class Origin:
    """Where the files of a folder come from."""

    kind: str
    repository: str
    revision: str  # a commit or a version, never a branch


@dataclass
class Record:
    """The content of ``fetched.json`` in ``folder``."""

    folder: Path
    origin: Origin
    files: dict[str, dict] = field(default_factory=dict)  # path below the folder -> bytes, sha256, blob, modified_ns

    @classmethod
    def read(cls, folder: Path, origin: Origin) -> Record:
        """Return the record of ``folder``, an empty one where there is none. A revision may change, the repository may not.

        Raises `FetchError` if the folder holds something else.
        """
        path = folder / NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            held, files = Origin(**found["source"]), {name: dict(entry) for name, entry in found["files"].items()}
        except FileNotFoundError:
            return cls(folder, origin)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FetchError(
                f"{path}: expected the record of an earlier fetch, found something that cannot be read as one "
                f"({type(error).__name__}: {error}); remove it, and every file is verified anew"
            ) from None
        if (held.kind, held.repository) != (origin.kind, origin.repository):
            raise FetchError(
                f"{folder} holds {held.repository} ({held.kind}), expected {origin.repository} ({origin.kind}) or an empty "
                "folder; name another with --to"
            )
        return cls(folder, origin, files)

    def known(self, name: str) -> Digests | None:
        """Return the digests taken of a file, None where it is absent or has been changed since."""
        entry, path = self.files.get(name), self.folder / name
        try:
            found = path.stat()
            if entry is None or (found.st_size, found.st_mtime_ns) != (entry["bytes"], entry["modified_ns"]):
                return None
            return Digests(entry["bytes"], entry["sha256"], entry["blob"])
        except (OSError, KeyError):
            return None

    def look(self, name: str, *, again: bool) -> Digests:
        """Return the digests of a file that is there. They are computed if they are not known, or if ``again`` is set."""
        known = None if again else self.known(name)
        if known is None:
            known = digests(self.folder / name, name)
            self.add(name, known)
        return known

    def add(self, name: str, found: Digests, path: Path | None = None) -> None:
        """Note the digests of a file. ``path`` is where it lies now, if it is still to be moved to its place."""
        modified_ns = (path or self.folder / name).stat().st_mtime_ns
        self.files[name] = {**asdict(found), "modified_ns": modified_ns}

    def write(self) -> None:
        """Write ``fetched.json``, whole or not at all."""
        write_json(self.folder / NAME, {"source": asdict(self.origin), "files": self.files})
