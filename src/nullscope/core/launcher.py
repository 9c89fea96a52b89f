"""Which of several processes this one is: what the launcher says in the environment, and what a stage's command line says.

torch's launcher (``torchrun``, or ours) and SLURM set all of these. One of them alone is left over from something else, and would
make a process wait for others that do not exist, or do none of the work.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Position(NamedTuple):
    """A process among those that share a stage's work."""

    rank: int  # from 0
    world_size: int  # processes


def position() -> Position:
    """Return which process this is; the only one where no launcher has started it.

    Raises `ValueError` where ``RANK`` and ``WORLD_SIZE`` are not both there, or contradict each other.
    """
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and size is None:
        return Position(0, 1)
    if rank is None or size is None:
        there, missing = ("WORLD_SIZE", "RANK") if rank is None else ("RANK", "WORLD_SIZE")
        raise ValueError(f"{there} is set and {missing} is not: a launcher sets both; start this with torchrun, or unset {there}")
    found = Position(_whole("RANK", rank, 0), _whole("WORLD_SIZE", size, 1))
    if found.rank >= found.world_size:
        raise ValueError(f"RANK={rank} of WORLD_SIZE={size}: expected a rank from 0 to {found.world_size - 1}")
    return found


def local(name: str, otherwise: int) -> int:
    """Return ``LOCAL_RANK`` or ``LOCAL_WORLD_SIZE``. Raises `ValueError` if it is no such number."""
    return _whole(name, os.environ.get(name, str(otherwise)), otherwise)


def cpus() -> int:
    """Return how many CPUs are this rank's: those that the process may use, shared with the other ranks of this machine."""
    return max(1, len(os.sched_getaffinity(0)) // local("LOCAL_WORLD_SIZE", 1))


def positive(name: str, otherwise: int) -> int:
    """Return a variable that is a whole number of at least 1, ``otherwise`` if it is not set. Raises `ValueError`."""
    text = os.environ.get(name, "").strip()
    return _whole(name, text, 1) if text else otherwise


def arguments(*names: str) -> list[str]:
    """Return the arguments of a stage's command line, one per name such as ``<seed>``. Raises `ValueError` if they are others."""
    found = sys.argv[1:]
    if len(found) != len(names):
        wanted = " ".join(names)
        raise ValueError(f"expected {wanted}, found {' '.join(found) or 'nothing'}; usage: python {sys.argv[0]} {wanted}")
    return found


def _whole(name: str, text: str, least: int) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {text!r}")
    return int(text)
