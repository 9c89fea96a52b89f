"""Damage that DVC does not look for: bytes that changed while size and time stayed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from damage import flip

from nullscope.cli import main
from nullscope.verification import CACHE, DAMAGED, MISSING, OUTDATED, UNKNOWN, WORKSPACE, VerificationError, verify

pytestmark = pytest.mark.slow

STAGES = """stages:
  make:
    cmd: python make.py
    deps: [make.py]
    outs: [data, scores.txt, metrics.json: {cache: false}]
"""
MAKE = """from pathlib import Path
Path("data/inner").mkdir(parents=True, exist_ok=True)
Path("data/a.txt").write_text("first")
Path("data/inner/b.txt").write_text("second")
Path("scores.txt").write_text("0.5")
Path("metrics.json").write_text("{}")
"""


def run(root: Path, command: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
    environment |= {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(command, shell=True, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project that has run once and was pushed."""
    root = tmp_path_factory.mktemp("verification") / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text(STAGES)
    (root / "make.py").write_text(MAKE)
    run(
        root, "git init -q && dvc init -q && dvc remote add -d shelf ../shelf && dvc repro -q && git add . && git commit -qm made"
    )
    run(root, "dvc push -q")
    return root


@pytest.fixture
def project(finished, tmp_path) -> Path:
    shutil.copytree(finished.parent / "shelf", tmp_path / "shelf")
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def found(root: Path, remote: str | None = None) -> list[tuple[str, str, str]]:
    return [(own.where, own.path, own.what) for own in verify(root, remote).findings]


def object_of(root: Path, content: bytes) -> Path:
    return next(path for path in root.rglob("files/md5/*/*") if path.read_bytes() == content)


def test_what_is_whole_is_all_right(project):
    report = verify(project, "shelf")
    assert (report.findings, report.outputs) == ([], 3)
    assert report.hashed == {WORKSPACE: 4, CACHE: 4, "shelf": 4}, "two files, their list, and the scores; metrics have no object"


def test_a_flipped_bit_in_the_workspace_is_found_and_its_remedy_helps(project):
    run(project, "dvc status")  # what DVC remembers of the files
    flip(project / "data/inner/b.txt")
    flip(project / "metrics.json")
    assert "Data and pipelines are up to date" in run(project, "dvc status"), "DVC looks at sizes and times"
    assert found(project) == [(WORKSPACE, "data/inner/b.txt", DAMAGED), (WORKSPACE, "metrics.json", DAMAGED)]
    remedies = [own.remedy for own in verify(project).findings]
    assert remedies == ["rm data/inner/b.txt, then dvc checkout data", "rm metrics.json, then git checkout -- metrics.json"]
    for remedy in remedies:
        run(project, remedy.replace(", then ", " && "))
    assert found(project) == []


def test_a_flipped_bit_in_the_cache_is_found_and_its_remedy_helps(project):
    flip(object_of(project / ".dvc/cache", b"first"))
    (finding,) = verify(project).findings
    assert (finding.where, finding.path, finding.what) == (CACHE, "data/a.txt", DAMAGED)
    delete, again = finding.remedy.split(", then ")
    Path(delete.removeprefix("delete ")).unlink()
    assert again == "dvc commit --force make" and found(project) == [(CACHE, "data/a.txt", MISSING)]
    run(project, again)
    assert found(project) == []


def test_a_flipped_bit_in_a_remote_is_found_before_it_is_pulled(project):
    flip(object_of(project.parent / "shelf", b"0.5"))
    assert found(project) == []
    assert found(project, "shelf") == found(project, "") == [("shelf", "scores.txt", DAMAGED)]
    object_of(project.parent / "shelf", b"second").unlink()
    (missing, _) = verify(project, "shelf").findings
    assert (missing.path, missing.what, missing.remedy) == ("data/inner/b.txt", MISSING, "dvc push --remote shelf data")


def test_damage_in_both_places_is_fetched_again(project):
    flip(object_of(project / ".dvc/cache", b"0.5"))
    flip(project / "scores.txt")
    assert found(project) == [(WORKSPACE, "scores.txt", DAMAGED), (CACHE, "scores.txt", DAMAGED)]
    assert verify(project).findings[1].remedy.endswith(", then dvc fetch scores.txt")


def test_the_list_of_a_folder_is_verified_too(project):
    listed = next(path for path in (project / ".dvc/cache").rglob("*.dir"))
    flip(listed)
    assert found(project) == [(CACHE, "data", DAMAGED)], "the files are right: their hashes make the list again"
    (project / "data/a.txt").write_text("First")
    assert (WORKSPACE, "data", DAMAGED) in found(project)


def test_what_is_missing_not_listed_or_older_than_its_code_is_named(project):
    (project / "scores.txt").unlink()
    (project / "data/c.txt").write_text("of nobody")
    (project / "make.py").write_text(MAKE + "# edited\n")
    assert found(project) == [
        (WORKSPACE, "data/c.txt", UNKNOWN),
        (WORKSPACE, "scores.txt", MISSING),
        (WORKSPACE, "make", OUTDATED),
    ]
    assert "dvc repro make (changed since: make.py)" in [own.remedy for own in verify(project).findings]


def test_the_command_says_it_in_lines_and_in_its_status(project, monkeypatch):
    monkeypatch.chdir(project)
    done = CliRunner().invoke(main, ["verify", "--remote", "default"])
    assert done.exit_code == 0 and done.output.endswith("4 in the shelf; all as dvc.lock says\n")
    flip(project / "scores.txt")
    done = CliRunner().invoke(main, ["verify"])
    assert done.exit_code == 1 and "workspace: scores.txt: damaged; rm scores.txt, then dvc checkout scores.txt" in done.output
    done = CliRunner().invoke(main, ["verify", "--remote", "attic"])
    assert done.exit_code == 2 and "known remotes: shelf" in done.output


def test_a_project_of_somebody_else_is_verified_too(project, monkeypatch):
    """Where nothing may be written DVC gets no lock: the bytes are read all the same, and what was not looked at is said."""

    def refused(self, *arguments, **more):
        raise PermissionError(13, "Permission denied", ".dvc/tmp/lock")

    monkeypatch.setattr("dvc.repo.Repo.status", refused)
    monkeypatch.chdir(project)
    done = CliRunner().invoke(main, ["verify"])
    assert done.exit_code == 0 and "all as dvc.lock says\nwhether code is newer than results was not looked at" in done.output
    flip(project / "scores.txt")
    assert found(project) == [(WORKSPACE, "scores.txt", DAMAGED)]


def test_where_there_is_nothing_to_verify_that_is_said(tmp_path, finished):
    with pytest.raises(VerificationError, match="expected a DVC project"):
        verify(tmp_path)
    root = Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    (root / "dvc.lock").unlink()
    with pytest.raises(VerificationError, match="run `dvc repro` first"):
        verify(root)
