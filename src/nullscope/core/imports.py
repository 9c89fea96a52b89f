"""Which files of the package run when a module is imported: its import closure.

A training depends on the code of its own detector and on nothing else of the rooms that all detectors share. So the closure of
every detector's module is recorded with the hash of each file, and DVC compares the records (stage `detector_code`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from nullscope.core.files import sha256

PACKAGE = Path(__file__).parents[1]
TOP = PACKAGE.name  # of every module's name


def closure(module: str) -> dict[str, str]:
    """Return the SHA-256 of every file of the package that ``module`` runs, directly or not, by its path below the package.

    ``module`` is a full name such as ``nullscope.detectors.ns_net``. Imports inside functions count. Imports for types only do
    not: they never run. Empty files are left out.
    """
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        for file in _files(waiting.pop()):
            if file not in seen:
                seen.add(file)
                waiting += _imported(file)
    return {file.relative_to(PACKAGE).as_posix(): sha256(file) for file in sorted(seen) if file.stat().st_size}


def _files(module: str) -> Iterator[Path]:
    """Yield the file of a module and those of the packages around it, which Python runs first."""
    names = module.split(".")[1:]
    for length in range(1, len(names) + 1):  # not the package's own: it only offers `load` to people
        path = PACKAGE.joinpath(*names[:length])
        yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())


def _imported(file: Path) -> list[str]:
    """Return the modules of the package that a file imports when it runs. Raises `ValueError` on a relative import."""
    found = []
    for node in _running(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: expected absolute imports, found a relative one in line {node.lineno}")
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] == TOP]


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below one, without those that stand under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running(child)
