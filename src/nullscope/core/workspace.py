"""Where a relative path leads that a person has typed.

``dvc exp run --temp`` and ``--queue`` run the stages in a copy of the project, below ``.dvc/tmp/exps`` of the project where the
command was typed. A path that leads out of the project leads elsewhere from there.
"""

from __future__ import annotations

from pathlib import Path

COPIES = (".dvc", "tmp", "exps")  # below the project: where DVC makes its copies


def typed(path: str) -> Path:
    """Return the place that a path leads to from the project's root, or from that of the project that this one is a copy of.

    What lies in the copy counts first: data that its own stages have made.
    """
    here = Path(path)
    if here.is_absolute() or here.exists():
        return here
    for copy in Path.cwd().parents:
        if copy.parts[-len(COPIES) :] == COPIES:
            there = copy.parents[len(COPIES) - 1] / here
            return there if there.exists() else here
    return here
