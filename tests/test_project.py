"""A project of one's own: what `nullscope new` writes, and the wheel that carries it."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT

import nullscope.project as project
from nullscope.cli import main


def deps_of(dvc_yaml: Path) -> list[str]:
    """All dependencies of all stages."""
    stages = yaml.safe_load(dvc_yaml.read_text())["stages"].values()
    return [dep for stage in stages for dep in (stage.get("do") or stage).get("deps", [])]


def test_a_project_depends_on_a_copy_of_the_installed_code(tmp_path, monkeypatch):
    """Every file of the package that a stage depends on is in the copy that the stage `package` makes."""
    result = CliRunner().invoke(main, ["new", str(tmp_path / "own")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "own/.git").is_dir() and not (tmp_path / "own/.partial").exists()
    monkeypatch.chdir(tmp_path / "own")
    project.main()
    deps = deps_of(Path("dvc.yaml"))
    assert not [dep for dep in deps if dep.startswith("src/")]
    copied = [dep for dep in deps if dep.startswith(f"{project.COPY}/")]
    assert len(copied) == sum(dep.startswith(f"{project.CODE}/") for dep in deps_of(ROOT / "dvc.yaml")) > 100
    assert all(Path(dep).exists() for dep in copied)
    assert all(Path(dep).exists() for dep in deps if dep.startswith("stages/"))
    listed = subprocess.run(["dvc", "stage", "list", "--name-only"], capture_output=True, text=True, check=True)
    assert listed.stdout.split()[:2] == ["package", "world@embedded"]


def test_scripts_of_another_version_are_named(tmp_path, monkeypatch, capsys):
    """After an upgrade the scripts are still those of the old package."""
    project.create(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    project.main()
    assert "others" not in capsys.readouterr().out
    with open("stages/score.py", "a") as file:
        file.write("# mine\n")
    Path("stages/index.py").unlink()
    project.main()
    assert "stages/ has others than the installed package: index.py, score.py." in capsys.readouterr().out


def test_a_new_repository_has_its_first_commit(tmp_path, monkeypatch):
    """Without one `dvc exp run` ends with "unexpected error - Empty git repo"."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "n")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "n@example.org")
    assert project.create(tmp_path / "own") is None
    git = ["git", "-C", str(tmp_path / "own")]
    assert not subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    assert "dvc.yaml" in subprocess.run([*git, "ls-files"], capture_output=True, text=True, check=True).stdout


def test_git_that_knows_nobody_is_said(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_") or name == "EMAIL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    assert "who commits" in project.create(tmp_path / "own")


def test_the_folder_that_the_user_is_in_can_become_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["new", "."]).exit_code == 0
    assert Path("dvc.yaml").is_file() and os.path.samefile(".", tmp_path)


@pytest.mark.parametrize(("taken", "said"), [("dvc.yaml", "found files in it"), ("", "found a file")])
def test_nothing_is_written_over(tmp_path, taken, said):
    folder = tmp_path / "own"
    file = folder / taken if taken else folder
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    result = CliRunner().invoke(main, ["new", str(folder)])
    assert result.exit_code == 2 and said in result.output and file.read_text() == "mine"


def test_a_project_in_a_project_is_refused(tmp_path):
    (tmp_path / ".dvc").mkdir()
    result = CliRunner().invoke(main, ["new", str(tmp_path / "a/b")])
    assert result.exit_code == 2 and f"DVC project {tmp_path}" in result.output and not (tmp_path / "a").exists()


def test_without_git_dvc_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(project.shutil, "which", lambda name: None)
    result = CliRunner().invoke(main, ["new", str(tmp_path / "own")])
    assert "git was not found" in result.output
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only"], cwd=tmp_path / "own", capture_output=True, text=True, check=True
    )
    assert "train@ns_net-0" in listed.stdout


def test_nothing_is_left_of_a_project_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "PARTS", (*project.PARTS, "no_such_file"))
    assert CliRunner().invoke(main, ["new", str(tmp_path / "own")]).exit_code == 2
    assert not list((tmp_path / "own").iterdir())


# The package as it is installed


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The source archive of this checkout and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {file.suffix: file for file in out.iterdir()}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> dict[str, str]:
    """The variables of a fresh environment with that wheel; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(built[".whl"])], env=clean, check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    [ours] = {path for path in sys.path if path.endswith("site-packages") and (Path(path) / "torch").is_dir()}
    (packages / "dependencies.pth").write_text(ours)  # behind the wheel, so that its modules win
    return {**clean, "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_source_archive_and_wheel_carry_all_files_of_the_package(built):
    tracked = subprocess.run(
        ["git", "ls-files", "src/nullscope"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {name.removeprefix("src/") for name in tracked}
    with zipfile.ZipFile(built[".whl"]) as wheel, tarfile.open(built[".gz"]) as archive:
        assert not wanted - {*wheel.namelist()}
        assert not {name for name in archive.getnames() if "/shared/" in name or "/.venv/" in name}
        inside = {name for name in wheel.namelist() if name.startswith(f"nullscope/{project.TEMPLATE}/")}
    for part in project.PARTS:
        assert any(name.startswith(f"nullscope/{project.TEMPLATE}/{part}") for name in inside), part


@pytest.mark.slow
def test_the_installed_package_runs_without_a_checkout(installed, tmp_path):
    """It is the wheel that runs; it judges, imports weights and makes a project whose first stages run."""
    where = run(["python", "-c", "import nullscope; print(nullscope.__file__)"], tmp_path, installed)
    assert "/installed" in where and str(ROOT) not in where
    for command in ("predict", "evaluate", "serve", "import-weights", "calibrate", "card"):
        assert "Usage" in run(["nullscope", command, "--help"], tmp_path, installed)
    run(["nullscope", "new", "own"], tmp_path, installed)
    assert "2300 images" in run(["dvc", "repro", "index"], tmp_path / "own", installed)
    assert "didn't change" in run(["dvc", "repro", "index"], tmp_path / "own", installed)
