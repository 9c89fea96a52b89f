"""Pieces of work side by side on the CPUs of this process, one thread each.

torch's own threads share every single operation and wait for each other at its end. Their number changes the rounding of sums,
and where another program takes one of the CPUs, all of them wait for it a thousand times a second. A lane computes a whole piece
with one thread of torch: the bits do not depend on the number of lanes, and lanes wait for each other once, at the end.

It pays where an operation takes longer than Python needs to ask for the next one: Python runs one thread at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from nullscope.core import launcher

MOST = 8  # lanes: with the embedded tower asking takes about a tenth of the time, so more of them would wait for each other
Piece = TypeVar("Piece")
Result = TypeVar("Result")


def each(compute: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """Return what ``compute`` makes of every piece, in order.

    A lane sees the caller's context variables, and what it sets is its own. torch's settings of a thread, such as autocast, are
    not passed on. What a piece raises is raised here, after the pieces under way are done.
    """
    lanes = min(launcher.cpus(), len(pieces), MOST)
    if lanes < 2:
        return [copy_context().run(compute, piece) for piece in pieces]
    contexts = [copy_context() for _ in pieces]
    with ThreadPoolExecutor(lanes, "lane", _settings_of_torch()) as pool:
        return list(pool.map(lambda context, piece: context.run(compute, piece), contexts, pieces))


def _settings_of_torch() -> Callable[[], None]:
    """Return what gives a new thread this one's number of torch's threads; nothing where the process has not imported torch."""
    torch = sys.modules.get("torch")
    return partial(torch.set_num_threads, torch.get_num_threads()) if torch else lambda: None
