"""How much of the machine a stage uses. It comes from the environment and never from parameters or a command line.

DVC's run-cache is keyed by the command and the parameters: a result computed on eight GPUs must count on a laptop. So:

- ``NULLSCOPE_RANKS``: processes of a heavy stage (default 1), started under torch's elastic launcher, which starts them once
  more where one of them dies; all that is finished by then stays finished;
- ``NULLSCOPE_WORKERS``: processes per rank that decode or encode images (default: this rank's share of the CPUs);
- ``NULLSCOPE_DEVICE``: ``cpu``, ``cuda`` or ``cuda:1`` (default: CUDA where there is one, the rank's own of several);
- ``NULLSCOPE_CHECKPOINT_S``: seconds between the checkpoints of a training (default 60);
- ``NULLSCOPE_COMPILE``: ``1`` compiles the image tower of a training on CUDA with torch.compile (default: not).

None of them changes a result beyond the rounding of floats: one rank or several, the data stages write the same bytes, and
training, whose sums are then added in another order, the same model up to what `nullscope.training` states.

Several machines: the same command under the user's own ``torchrun`` or ``srun`` (docs/slurm); a process that finds ``RANK`` set
is a rank of theirs. ``.nullscope``, where finished pieces and checkpoints lie, must then be on a file system that all of them
see.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, TypeVar

from nullscope.core import launcher, streams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import ProcessGroup

T = TypeVar("T")

FRESH_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # of torch's launcher, see `_join`
DEVICE = re.compile(r"cpu|cuda(:\d{1,4})?")
RESTARTS = 1  # of all ranks, after the death of one
ANSWER = timedelta(minutes=10)  # how long a rank waits for the others within a step of training
PATIENCE = timedelta(days=1)  # and at a barrier, where one may have had more to do


class RankLost(OSError):
    """Another rank of this stage has ended, or does not answer."""


def workers() -> int:
    """Return how many worker processes this rank is to use, at least 1. Raises `ValueError` on a bad ``NULLSCOPE_WORKERS``.

    Default: the CPUs this process may use, shared with the other ranks of this machine.
    """
    return launcher.positive("NULLSCOPE_WORKERS", launcher.cpus())


def rank() -> int:
    """Return the number of this process, from 0."""
    return launcher.position().rank


def world_size() -> int:
    """Return the number of processes that share this stage's work."""
    return launcher.position().world_size


def mine(work: Sequence[T]) -> Sequence[T]:
    """Return this rank's share of a list of work (shards, mostly)."""
    return work[rank() :: world_size()]


def own(count: int) -> slice:
    """Return the contiguous part of ``count`` rows that is this rank's: all parts together are everything, none overlap.

    Sizes differ by at most one: 32 rows are 11, 11 and 10 for three ranks.
    """
    size, more = divmod(count, world_size())
    start = rank() * size + min(rank(), more)
    return slice(start, start + size + (rank() < more))


def launch(main: Callable[[], None], *, alone: bool = False) -> None:
    """Run a stage's ``main``, or start the same command ``NULLSCOPE_RANKS`` times under torch's elastic launcher.

    Processes started by the launcher (by us, or by a user's own ``torchrun``) find ``RANK`` set and run ``main``. A stage whose
    work cannot be shared says ``alone`` and runs once; under a user's launcher, on rank 0. What is wrong with the input ends as
    one line and status 1, not as a traceback: `ValueError` and `OSError` are ours to explain, anything else is a bug and shows
    itself. ``--help`` prints what the script says of itself.
    """
    with streams.guarded():
        try:
            _launch(main, alone)
        except (ValueError, OSError, MemoryError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            sys.exit(f"error: {error or 'there is not enough memory'}")
        except KeyboardInterrupt:
            sys.exit("interrupted")


def _launch(main: Callable[[], None], alone: bool) -> None:
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(sys.modules[main.__module__].__doc__)
        return
    wanted = 1 if alone else launcher.positive("NULLSCOPE_RANKS", 1)
    if wanted > 1 and "RANK" not in os.environ:
        elastic = ["--standalone", f"--nproc-per-node={wanted}", f"--max-restarts={RESTARTS}"]
        command = [sys.executable, "-m", "torch.distributed.run", *elastic, *sys.argv]
        sys.exit(subprocess.call(command, env={**os.environ, FRESH_STORE: "1"}))
    if not alone or rank() == 0:
        main()
    barrier()


def barrier() -> None:
    """Wait until every rank is here; return at once where there is one rank. Raises `RankLost` where one has ended."""
    if world_size() > 1:
        import torch.distributed as dist

        _join()
        with _explained():
            dist.monitored_barrier(timeout=PATIENCE)


def add_up(tensor: Tensor) -> None:
    """Replace a tensor by the sum of those of all ranks, in place: the same bits on every rank. One rank: nothing to do.

    All ranks call it in the same order with the same shape. Raises `RankLost` where one has ended.
    """
    if world_size() > 1:
        import torch.distributed as dist

        _join()
        with _explained():
            dist.all_reduce(tensor, group=_nccl() if tensor.is_cuda else None)


def numbers(value: int) -> list[int]:
    """Return the ``value`` of every rank, by rank."""
    import torch

    value_R = torch.zeros(world_size(), dtype=torch.int64)
    value_R[rank()] = value
    add_up(value_R)
    return value_R.tolist()


def _join() -> None:
    """Join the other ranks, once. On the CPU by gloo, which notices at once when a peer dies.

    The elastic launcher keeps one store for all attempts (pytorch#135712; still so in 2.14), where a restarted rank would
    find the addresses of dead ones and wait for them: each attempt gets its own part of it. On several machines the attempts
    are counted on each by itself; there `FRESH_STORE` has a new store made each time.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        return
    with _explained():
        store, number, count = next(dist.rendezvous("env://", timeout=ANSWER))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group("gloo", store=store, rank=number, world_size=count, timeout=ANSWER)
    atexit.register(dist.destroy_process_group)


@cache
def _nccl() -> ProcessGroup:
    """Return the group for tensors on CUDA; all ranks come here together, at their first such sum."""
    import torch.distributed as dist

    return dist.new_group(backend="nccl", timeout=ANSWER)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises
        cause = str(error).strip().splitlines()[0]
        said = f"rank {rank()} of {world_size()}: another rank has ended or does not answer; see what that one said"
        raise RankLost(f"{said} ({cause})") from None


def end_with_parent() -> None:
    """Make this worker process end when the process that started the pool does, were it by SIGKILL.

    Otherwise it would wait for work for ever, and finish the piece it has in hand while a rerun makes the same one.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def checkpoint_seconds() -> float:
    """Return the seconds between two checkpoints of a training. Raises `ValueError` on a bad ``NULLSCOPE_CHECKPOINT_S``."""
    text = os.environ.get("NULLSCOPE_CHECKPOINT_S", "").strip() or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"NULLSCOPE_CHECKPOINT_S: expected seconds, 0 or more, found {text!r}")
    return seconds


def compiles() -> bool:
    """Return whether image towers are compiled for training. Raises `ValueError` on a bad ``NULLSCOPE_COMPILE``."""
    text = os.environ.get("NULLSCOPE_COMPILE", "").strip()
    if text not in ("", "0", "1"):
        raise ValueError(f"NULLSCOPE_COMPILE: expected 0 or 1, found {text!r}")
    return text == "1"


def device(name: str | None = None) -> torch.device:
    """Return the device of this rank: ``name``, or what ``NULLSCOPE_DEVICE`` says. Raises `ValueError` if it is not there.

    On the CPU torch is set to one thread, whatever the machine has: a sum that is split among threads is rounded otherwise, and a
    model would depend on the machine it was trained on. (Two threads were also slower here: 57 ms instead of 1.7 to caption an
    image with the tiny BLIP on two virtual CPUs, where they wait for each other.) More CPUs are used by lanes (`core.lanes`),
    workers and ranks.

    On CUDA convolutions are computed in float32, not in TF32, which is torch's default. The first layer of a tower is one, and
    cuDNN takes TF32 for 64 images and not for one: a logit depended on its batch by 1e-4, and without TF32 by 2e-6
    (`python bench/rounding.py`, H200).
    """
    import torch

    name = name or os.environ.get("NULLSCOPE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        name = f"cuda:{launcher.local('LOCAL_RANK', 0)}"
    if not DEVICE.fullmatch(name):  # torch knows others, which nothing here was tried on
        raise ValueError(f"device (NULLSCOPE_DEVICE): expected `cpu`, `cuda` or `cuda:N`, found {name!r}")
    chosen = torch.device(name)
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device {name} (NULLSCOPE_DEVICE): this machine has {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    if chosen.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # or every rank would take some memory of the first one
    return chosen
