"""How much of the machine a stage uses. It comes from the environment and never from parameters or a command line.

DVC's run-cache is keyed by the command and the parameters: a result computed on eight GPUs must count on a laptop. So:

- ``NULLSCOPE_RANKS``: processes of a heavy stage (default 1), started under torch's elastic launcher;
- ``NULLSCOPE_WORKERS``: processes that decode or encode images (default: the CPUs this process may use);
- ``NULLSCOPE_DEVICE``: ``cpu``, ``cuda`` or ``cuda:1`` (default: CUDA where there is one).

None of them changes a result.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def workers() -> int:
    """Return how many worker processes to use, at least 1. Raises `ValueError` on a bad ``NULLSCOPE_WORKERS``."""
    return _positive("NULLSCOPE_WORKERS", len(os.sched_getaffinity(0)))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Return the number of processes that share this stage's work."""
    return int(os.environ.get("WORLD_SIZE", 1))


def mine(work: Sequence[T]) -> Sequence[T]:
    """Return this rank's share of a list of work (shards, mostly)."""
    return work[rank() :: world_size()]


def launch(main: Callable[[], None], *, alone: bool = False) -> None:
    """Run a stage's ``main``, or start the same command ``NULLSCOPE_RANKS`` times under torch's elastic launcher.

    Processes started by the launcher (by us, or by a user's own ``torchrun``) find ``RANK`` set and run ``main``. A stage whose
    work cannot be shared says ``alone`` and runs once. What is wrong with the input ends as one line and status 1, not as a
    traceback: `ValueError` and `OSError` are ours to explain, anything else is a bug and shows itself.
    """
    try:
        wanted = 1 if alone else _positive("NULLSCOPE_RANKS", 1)
        if wanted > 1 and "RANK" not in os.environ:
            elastic = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wanted}"]
            sys.exit(subprocess.call([sys.executable, *elastic, *sys.argv]))
        main()
        barrier()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def barrier() -> None:
    """Wait until every rank is here; return at once where there is one rank."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(dist.destroy_process_group)
    dist.barrier()


def device() -> torch.device:
    """Return the device of this rank. Raises `ValueError` if ``NULLSCOPE_DEVICE`` names one that is not there.

    On the CPU torch is set to one thread, whatever the machine has: a sum that is split among threads is rounded otherwise, and a
    model would depend on the machine it was trained on. (Two threads were also slower here: 57 ms instead of 1.7 to caption an
    image with the tiny BLIP on two virtual CPUs, where they wait for each other.) More CPUs are used by more ranks and workers.
    """
    import torch

    name = os.environ.get("NULLSCOPE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise ValueError(f"NULLSCOPE_DEVICE: expected `cpu`, `cuda` or `cuda:N`, found {name!r}") from None
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"NULLSCOPE_DEVICE={name}: this machine has {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    return chosen


def _positive(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, found {text!r}")
    return int(text)
