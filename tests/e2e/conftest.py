"""One run of the small pipeline for all tests of this folder, whichever worker asks for it first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from e2e.project import run_small_pipeline
from filelock import FileLock


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which the small pipeline has run once. Read it, and change nothing: others read it meanwhile."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers share
    root, finished = folder / "project", folder / "project.finished"
    with FileLock(folder / "project.lock"):
        if not finished.exists():
            if root.exists():
                pytest.fail("the small pipeline failed; see the first test that needed it")
            run_small_pipeline(root)
            finished.touch()
    return root


@pytest.fixture
def clone(project, tmp_path) -> Path:
    """A copy of that project, DVC's cache included, to work in."""
    return Path(shutil.copytree(project, tmp_path / "clone", symlinks=True))
