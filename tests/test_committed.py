"""The line that compares a run with the last commit."""

import json
import subprocess

import pytest

from nullscope.committed import against_commit


@pytest.fixture
def clone(tmp_path):
    """A repository whose commit has two runs; return its root, and what writes other numbers of the second."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "params.yaml").write_text("run: {}\n")

    def write(r_acc: float = 0.9, f_acc: float = 0.5, auroc: float = 0.8) -> None:
        first = {"r_acc": 0.7, "auroc": 0.9, "subsets": {"gan": {"f_acc": 0.4}, "reals_only": {"n_real": 3}}}
        second = {"r_acc": r_acc, "auroc": auroc, "subsets": {"gan": {"f_acc": f_acc}}}
        (tmp_path / "metrics/summary.json").write_text(json.dumps({"a-0": first, "b-0": second}))

    write()
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "numbers"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path, write


def test_the_same_bytes_are_as_committed(clone):
    assert against_commit(clone[0]).startswith("As committed: every number")


def test_less_than_a_point_is_rounding_and_is_said(clone):
    root, write = clone
    write(f_acc=0.508, auroc=0.7)
    assert against_commit(root).startswith("As committed up to rounding: no rate of this table is more than 0.8 points off")


def test_a_difference_names_the_rate_that_differs_most(clone):
    root, write = clone
    write(r_acc=0.7, f_acc=0.48)
    line = against_commit(root)
    assert line.startswith(
        "Not as committed: 2 of 4 rates are more than 1 point off, most of all b-0, Real: 70.0, committed 90.0."
    )
    assert "git restore dvc.lock metrics" in line


def test_other_parameters_or_runs_are_not_compared(clone):
    root, _ = clone
    (root / "params.yaml").write_text("run: {seeds: [1]}\n")
    assert against_commit(root) is None
    (root / "params.yaml").write_text("run: {}\n")
    (root / "metrics/summary.json").write_text(json.dumps({"a-0": {"r_acc": 0.5, "subsets": {}}}))
    assert against_commit(root) is None


def test_without_git_or_a_commit_nothing_is_said(clone, tmp_path_factory, monkeypatch):
    fresh = tmp_path_factory.mktemp("fresh")
    (fresh / "metrics").mkdir()
    for name in ("params.yaml", "metrics/summary.json"):
        (fresh / name).write_bytes((clone[0] / name).read_bytes())
    assert against_commit(fresh) is None
    subprocess.run(["git", "init", "-q"], cwd=fresh, check=True)
    assert against_commit(fresh) is None
    monkeypatch.setenv("PATH", str(fresh))
    assert against_commit(clone[0]) is None
