"""What ``dvc.lock`` names: the outputs of the stages and the MD5 of each.

DVC takes a file for unchanged that has the size and the time it had, so it runs a stage on a file in which a bit has flipped. The
stages that make numbers and figures hash what they read (`refuse_damaged`); `verification` hashes everything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import yaml

CHUNK = 2**20  # bytes
FOLDER = ".dir"  # how DVC ends the hash of a folder: that of the list of its files
LOCK = "dvc.lock"


class DamagedInputError(ValueError):
    """A file that a stage is to read is not what the stage before it wrote."""


def locked_md5s(root: Path) -> dict[str, str]:
    """Return the MD5 of every output that ``dvc.lock`` names, by path; of a folder with `FOLDER` at its end. Empty without it."""
    path = root / LOCK
    if not path.is_file():
        return {}
    stages = (yaml.load(path.read_bytes(), Loader=_LOADER) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def refuse_damaged(*inputs: str, root: Path = Path()) -> None:
    """Raise `DamagedInputError` if an output that is one of ``inputs``, or lies below one, is not what ``dvc.lock`` names.

    Only in a stage that DVC runs: it has written ``dvc.lock`` for all stages before. A stage that is started by hand reads what
    is there.
    """
    if "DVC_STAGE" not in os.environ:
        return
    for name, expected in locked_md5s(root).items():
        path, wanted = root / name, any(name == own or name.startswith(f"{own}/") for own in inputs)
        if wanted and path.exists() and (found := md5_of(path)) != expected:
            raise DamagedInputError(
                f"{name}: expected the bytes that {LOCK} names (MD5 {expected}), found others (MD5 {found}): damaged, or changed "
                "by hand. `nullscope verify` says what is damaged and what to run"
            )


def md5_of(path: Path, progress: Callable[[int], None] = lambda count: None) -> str:
    """Return the hash that DVC gives to a file or a folder; ``progress`` is told the bytes that were read."""
    if path.is_dir():
        return md5_of_list({file.relative_to(path).as_posix(): md5_of(file, progress) for file in files_below(path)})
    with open(path, "rb") as file:
        return md5_of_bytes(file, progress)


def md5_of_bytes(file: BinaryIO, progress: Callable[[int], None] = lambda count: None) -> str:
    """Return the MD5 of what is left to read of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(CHUNK):
        digest.update(block)
        progress(len(block))
    return digest.hexdigest()


def md5_of_list(files: Mapping[str, str]) -> str:
    """Return the hash that DVC gives to a folder with these files (path -> MD5)."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + FOLDER


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


# libyaml where it is there: the lock of 36 trainings takes 0.1 s to read, and 0.5 s without
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
