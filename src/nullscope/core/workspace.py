"""Where a relative path leads that a person has typed.

``dvc exp run --temp`` and ``--queue`` run the stages in a copy of the project, below ``.dvc/tmp/exps`` of the project where the
command was typed. A path that leads out of the project leads elsewhere from there.
"""

from __future__ import annotations

from pathlib import Path

COPIES = "/.dvc/tmp/exps/"  # below the project: where DVC makes its copies


def original(folder: Path) -> Path | None:
    """Return the project that holds the copy that ``folder`` lies in; None if it lies in no copy."""
    outer, inside, _ = f"{folder}/".partition(COPIES)
    return Path(outer) if inside else None


def typed(path: str) -> Path:
    """Return the place that a path leads to from the project's root, or from that of the project that this one is a copy of.

    What lies in the copy counts first: data that its own stages have made.
    """
    here, project = Path(path), original(Path.cwd())
    if project is None or here.is_absolute() or here.exists():
        return here
    there = project / here
    return there if there.exists() else here
