"""Whether results are what ``dvc.lock`` names: every byte hashed again, in the workspace, in the cache and in a remote.

DVC takes a file for unchanged that has the size and the time it had, and a protected object of its cache for whole. A flipped
bit on a disk changes neither. Here nothing is taken for granted, and what is found comes with what to run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nullscope.locked import FOLDER, files_below, md5_of, md5_of_bytes, md5_of_list

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo

WORKSPACE, CACHE = "workspace", "cache"
DAMAGED, MISSING, UNKNOWN, OUTDATED = "damaged", "missing", "not listed", "outdated"
Progress = Callable[[int], None]  # bytes that were read


class VerificationError(ValueError):
    """There is nothing to verify, or the remote cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as ``dvc.lock`` says."""

    where: str  # WORKSPACE, CACHE or the name of a remote
    path: str  # of the output, with a file's path in it; of an outdated one, the stage
    what: str  # DAMAGED, MISSING, UNKNOWN or OUTDATED
    remedy: str


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found."""

    outputs: int
    hashed: dict[str, int]  # place -> files that were read there
    findings: list[Finding]
    left_out: str = ""  # what could not be looked at, and why


def verify(root: Path, remote: str | None = None, progress: Progress = lambda count: None) -> Report:
    """Hash all outputs of the project at ``root`` in workspace and cache, and in ``remote`` (its name; "": the default one).

    Raises `VerificationError` where there is no project, no result that ``dvc.lock`` names, or no such remote.
    """
    repo = _opened(root)
    outs = [out for out in repo.index.outs if out.hash_info]
    if not outs:
        raise VerificationError(f"{root}: expected results that dvc.lock names, found none; run `dvc repro` first")
    cache = _Store(CACHE, repo.cache.local, progress)
    stores = [cache, *([_remote(repo, remote, progress)] if remote is not None else [])]
    workspace = _Workspace(progress)
    findings: list[Finding] = []
    for out in outs:
        files = cache.listed(out.hash_info.value)
        wrong = list(workspace.check(out, files))
        findings += wrong
        for store in stores if out.use_cache else ():
            findings += store.check(out, files, workspace_is_right=not wrong)
    hashed = {WORKSPACE: workspace.hashed, **{store.name: len(store.known) for store in stores}}
    try:
        return Report(len(outs), hashed, [*findings, *_outdated(repo)])
    except OSError as error:  # DVC compares code with results under a lock, which somebody else's project does not let us take
        return Report(len(outs), hashed, findings, f"whether code is newer than results was not looked at: {error}")


class _Workspace:
    """The files as they lie in the project."""

    def __init__(self, progress: Progress) -> None:
        self.hashed = 0
        self._progress = progress

    def check(self, out: Output, files: dict[str, str] | None) -> Iterator[Finding]:
        """Yield what is wrong with an output; ``files`` as `_Store.listed` returns them, None where its list is lost."""
        path, name = Path(out.fs_path), out.def_path
        restore = f"dvc checkout {name}" if out.use_cache else f"git checkout -- {name}"
        if not path.exists():
            yield Finding(WORKSPACE, name, MISSING, f"{restore}, or dvc pull {name}, or dvc repro {_stage(out)}")
            return
        there = {"": path} if path.is_file() else {file.relative_to(path).as_posix(): file for file in files_below(path)}
        found = {inner: self._md5(file) for inner, file in there.items()}
        if files is None:
            if md5_of_list(found) != out.hash_info.value:
                yield Finding(WORKSPACE, name, DAMAGED, f"rm -r {name}, then dvc pull {name}, or dvc repro {_stage(out)}")
            return
        for inner in sorted(files.keys() | found.keys()):
            file = f"{name}/{inner}" if inner else name
            if inner not in found:
                yield Finding(WORKSPACE, file, MISSING, restore)
            elif inner not in files:
                yield Finding(WORKSPACE, file, UNKNOWN, f"rm {file}")
            elif found[inner] != files[inner]:
                yield Finding(WORKSPACE, file, DAMAGED, f"rm {file}, then {restore}")

    def _md5(self, path: Path) -> str:
        self.hashed += 1
        return md5_of(path, self._progress)


@dataclass
class _Store:
    """Objects by their hashes: DVC's cache, or a remote."""

    name: str
    objects: Any  # dvc_objects' database of objects
    progress: Progress
    known: dict[str, str | None] = field(default_factory=dict)  # hash that is asked for -> hash that was found, None: no object

    def listed(self, oid: str) -> dict[str, str] | None:
        """Return the hashes of an output's files by their paths in it ("": the output itself); None where the list is lost."""
        if not oid.endswith(FOLDER):
            return {"": oid}
        if self._found(oid) != oid:
            return None
        with self.objects.fs.open(self.objects.oid_to_path(oid), "rb") as file:
            return {entry["relpath"]: entry["md5"] for entry in json.load(file)}

    def check(self, out: Output, files: dict[str, str] | None, *, workspace_is_right: bool) -> Iterator[Finding]:
        """Yield the objects of an output that are missing or damaged here."""
        name, oid = out.def_path, out.hash_info.value
        names = {oid: name} | {md5: f"{name}/{inner}" if inner else name for inner, md5 in (files or {}).items()}
        for own, path in names.items():
            found = self._found(own)
            if found == own:
                continue
            again = f"dvc push --remote {self.name} {name}"
            if self.name == CACHE:
                again = f"dvc commit --force {_stage(out)}" if workspace_is_right else f"dvc fetch {name}"
            what, first = (MISSING, "") if found is None else (DAMAGED, f"delete {self.objects.oid_to_path(own)}, then ")
            yield Finding(self.name, path, what, first + again)

    def _found(self, oid: str) -> str | None:
        """Return the hash of the bytes of an object, None if there is none."""
        if oid not in self.known:
            path = self.objects.oid_to_path(oid)
            if self.objects.fs.exists(path):
                with self.objects.fs.open(path, "rb") as file:
                    self.known[oid] = md5_of_bytes(file, self.progress) + (FOLDER if oid.endswith(FOLDER) else "")
            else:
                self.known[oid] = None
        return self.known[oid]


def _opened(root: Path) -> Repo:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        return Repo(str(root))
    except DvcException as error:
        raise VerificationError(f"{root}: expected a DVC project: {error}") from None


def _remote(repo: Repo, name: str, progress: Progress) -> _Store:
    from dvc.exceptions import DvcException

    known = ", ".join(repo.config["remote"]) or "none"
    try:
        objects = repo.cloud.get_remote_odb(name or None, "verify")
    except DvcException as error:
        raise VerificationError(f"--remote {name or '(the default)'}: {error}; known remotes: {known}") from None
    return _Store(name or repo.config["core"]["remote"], objects, progress)


def _outdated(repo: Repo) -> Iterator[Finding]:
    """Yield the stages whose results are older than their code, parameters or inputs."""
    for stage, changes in repo.status().items():
        inputs = [path for change in changes if isinstance(change, dict) for path in change.get("changed deps", {})]
        if inputs or "changed command" in changes:
            since = ", ".join(inputs) or "its command"
            name = stage.rpartition(":")[2]  # without the path of dvc.yaml, which is there where this is not the current folder
            yield Finding(WORKSPACE, name, OUTDATED, f"dvc repro {name} (changed since: {since})")


def _stage(out: Output) -> str:
    """Return the stage of an output as a command takes it: its name in dvc.yaml, or its .dvc file."""
    return getattr(out.stage, "name", None) or out.stage.path_in_repo
