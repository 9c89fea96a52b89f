"""A stage that makes numbers hashes what it reads: DVC, which looks at sizes and times, would have it read damaged files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from damage import flip

from nullscope.locked import DamagedInputError, locked_md5s, md5_of, refuse_damaged

DVC_YAML = """stages:
  score:
    cmd: mkdir -p models && echo w > models/a.bin && echo 0.5 > scores.txt
    outs: [models, scores.txt]
  report:
    cmd: >-
      python -c "from nullscope.locked import refuse_damaged; refuse_damaged('scores.txt', 'models')" && cp scores.txt report.txt
    deps: [scores.txt, models]
    params: [title]
    outs: [report.txt]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("title: a\n")
    assert dvc(folder, "init", "--no-scm", "-q").returncode == 0
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stderr
    return folder


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return subprocess.run(["dvc", *arguments], cwd=root, env=clean, capture_output=True, text=True, check=False)


def test_hashes_are_those_of_dvc(root):
    found = locked_md5s(root)
    assert set(found) == {"models", "scores.txt", "report.txt"} and found["models"].endswith(".dir")
    assert {name: md5_of(root / name) for name in found} == found
    assert locked_md5s(root / "elsewhere") == {}


@pytest.mark.parametrize("name", ["scores.txt", "models/a.bin"])
def test_dvc_runs_a_stage_on_a_damaged_file_and_the_stage_refuses(root, name):
    before = (root / "report.txt").read_bytes()
    (root / "params.yaml").write_text(f"title: {json.dumps(name)}\n")  # the report is to be made again
    flip(root / name)
    done = dvc(root, "repro", "report")
    flip(root / name)
    assert done.returncode != 0 and "DamagedInputError" in done.stderr and "nullscope verify" in done.stderr
    assert not (root / "report.txt").exists(), "DVC deletes it before the stage runs"
    assert dvc(root, "repro", "report").returncode == 0 and (root / "report.txt").read_bytes() == before


def test_a_stage_by_hand_reads_what_is_there(root, monkeypatch):
    flip(root / "scores.txt")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    refuse_damaged("scores.txt", root=root)
    monkeypatch.setenv("DVC_STAGE", "report")
    refuse_damaged("models", "score", root=root)  # another file, and the beginning of a name
    with pytest.raises(DamagedInputError, match=r"^scores\.txt: expected the bytes that dvc\.lock names"):
        refuse_damaged("scores.txt", root=root)
    flip(root / "scores.txt")
