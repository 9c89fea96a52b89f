"""Copies of model folders: hard links where that is possible, and no model is ever overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nullscope.core.files import link_or_copy, replacing_directory


def check_free(out: Path) -> None:
    """Raise `ValueError` if there is something at ``out``."""
    if out.exists():
        raise ValueError(f"{out} is there already; name a folder that is not, so that no model is overwritten")


@contextmanager
def copy_folder(model: Path, out: Path, without: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a copy of a model folder to add files to; on success it becomes ``out``, whole or not at all.

    ``without``: names of files that it is not to have. Raises `ValueError` if there is something at ``out``.
    """
    check_free(out)
    with replacing_directory(out) as partial:
        partial.rmdir()
        shutil.copytree(model, partial, copy_function=link_or_copy, ignore=shutil.ignore_patterns(*without))
        yield partial
