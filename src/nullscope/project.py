"""A project of one's own, for people who installed the package and have no checkout: ``nullscope new``.

In a checkout DVC watches the code in src/nullscope. A project elsewhere has no such folder. So its first stage, ``package``,
copies the code of the installed package to data/package, and the other stages depend on files of that copy: after an upgrade
what the changed files touch runs again, and nothing else.

Nothing but the standard library is imported at the top: `setup.py` reads `PARTS` from here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PACKAGE = Path(__file__).parent
# What of a checkout makes a project. The wheel carries it in the folder `TEMPLATE` of the package.
PARTS = (".dvc/.gitignore", ".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", "conf", "dvc.yaml", "params.yaml", "stages")
TEMPLATE = "template"
CODE, COPY = "src/nullscope", "data/package"
STAGE = f"""\
  package:
    desc: The code of the installed package; runs every time, so that an upgrade is seen.
    cmd: python -m nullscope.project
    always_changed: true
    outs: [{COPY}]

"""
README = """\
# A nullscope project

    dvc repro                  # everything, or what is missing of it: images, detectors, metrics, reports/index.html
    nullscope summary          # the table in the terminal
    python stages/track.py     # publish to MLflow

`conf/` holds the choices: `conf/config.yaml` names the data set, the encoders and the detectors of a run, and the folders beside
it describe them. `params.yaml` is composed from them by `dvc exp run`:

    dvc exp run -S dataset=folder -S dataset.root=../photos -S 'dataset.train=[a,b]' -S 'dataset.test=[c,d]'

The code is that of the installed package. After an upgrade of it `dvc repro` runs what that touches.
"""


def template() -> Path:
    """Return the folder with what makes a project: of the installed package, or the checkout's root.

    Raises `ValueError` if the package was installed without it.
    """
    for folder in (PACKAGE / TEMPLATE, PACKAGE.parents[1]):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise ValueError(f"{PACKAGE} was installed without what makes a project: install a wheel of nullscope, or use a checkout")


def create(folder: Path) -> str | None:
    """Write a project into ``folder``, whole or not at all; return what `dvc exp run` still lacks, None if nothing.

    A folder that is no part of a git repository becomes one with a first commit, where git is there and knows who commits. Raises
    `ValueError` if there is something in the folder already, or if it lies in another DVC project.
    """
    from nullscope.repository import git

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or an empty folder, found {'a file' if folder.is_file() else 'files in it'}")
    around = next((parent for parent in folder.absolute().parents if (parent / ".dvc").is_dir()), None)
    if around:
        raise ValueError(f"{folder} lies in the DVC project {around}: choose a folder outside of it")
    partial = folder / ".partial"  # not beside it: the folder may be the one that the user is in
    partial.mkdir(parents=True)
    try:
        _write(partial)
        for part in partial.iterdir():
            part.rename(folder / part.name)
    finally:
        shutil.rmtree(partial)
    if shutil.which("git") is None:
        config = folder / ".dvc/config"
        config.write_text(config.read_text(encoding="utf-8").replace("[core]", "[core]\n    no_scm = true", 1), encoding="utf-8")
        return "git was not found: `dvc repro` works without it, `dvc exp run` does not"
    if git(folder, "rev-parse", "--is-inside-work-tree") is not None:
        return None
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    if git(folder, "commit", "--quiet", "-m", "A nullscope project") is not None:
        return None
    return "git does not know who commits: `git commit -m begin` says what to do; `dvc exp run` needs that commit"


def _write(folder: Path) -> None:
    for part in PARTS:
        copy_part(template(), folder, part)
    dvc_yaml = folder / "dvc.yaml"
    stages = dvc_yaml.read_text(encoding="utf-8").replace(f"{CODE}/", f"{COPY}/")
    dvc_yaml.write_text(stages.replace("\nstages:\n", f"\nstages:\n{STAGE}", 1), encoding="utf-8")
    (folder / "README.md").write_text(README, encoding="utf-8")


def copy_part(source: Path, target: Path, part: str) -> None:
    """Copy one of `PARTS`, a file or a folder, from one root to another."""
    (target / part).parent.mkdir(parents=True, exist_ok=True)
    if (source / part).is_dir():
        shutil.copytree(source / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source / part, target / part)


def other_stages() -> list[str]:
    """Return the scripts in stages/ that are not those of the installed package: of an older one, or edited."""
    own = {file.name: file.read_bytes() for file in Path("stages").glob("*.py")}
    return sorted(file.name for file in (template() / "stages").glob("*.py") if own.get(file.name) != file.read_bytes())


def main() -> None:
    """Copy the package's code to `COPY`: the stage ``package``. Say which scripts of the project are not the package's."""
    from nullscope.core.files import replacing_directory

    with replacing_directory(Path(COPY)) as partial:
        shutil.copytree(PACKAGE, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", TEMPLATE))
    print(f"package: {PACKAGE.name} -> {COPY}")
    if others := other_stages():
        print(f"stages/ has others than the installed package: {', '.join(others)}. Its own come with `nullscope new FOLDER`")


if __name__ == "__main__":
    main()
