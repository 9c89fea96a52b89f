"""A relative path, in the copy of the project that DVC makes for an experiment."""

from pathlib import Path

import pytest

from nullscope.core.workspace import typed


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with pictures beside it, and a copy of it as `dvc exp run --temp` makes one, which is the working folder."""
    copy = tmp_path / "project/.dvc/tmp/exps/standalone/tmp1234"
    for folder in (copy, tmp_path / "pictures", tmp_path / "project/inside"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(copy)
    return tmp_path / "project"


def test_a_path_out_of_the_copy_leads_where_it_leads_from_the_project(project):
    assert typed("../pictures").samefile(project.parent / "pictures")
    assert typed("inside").samefile(project / "inside")


def test_what_lies_in_the_copy_counts_first(project):
    Path("inside").mkdir()
    assert typed("inside").samefile(Path.cwd() / "inside")


def test_what_is_nowhere_and_what_is_absolute_stay_as_they_are(project, monkeypatch):
    assert typed("../nowhere") == Path("../nowhere")
    assert typed(str(project)) == project
    monkeypatch.chdir(project)
    assert typed("../pictures") == Path("../pictures")
