"""What the benchmarks share: interleaved timing, a description of the machine, a table and a JSON file.

Alternatives are timed in turns (a b c, a b c, ...), so that whatever else the machine does falls on all of them alike; the
median of the rounds is reported.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nullscope.core.files import write_json

Measure = Callable[[str, int, int, Any], list[dict[str, Any]]]
RESULTS = Path(__file__).parent / "results"


def median_seconds(
    alternatives: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Time every alternative once per round, in turns, after one round that does not count; return the medians in seconds.

    Pass ``time.process_time`` for work of one thread: it counts this process's own CPU time and does not see its neighbours.
    """
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for round_number in range(rounds + 1):
        for name, act in alternatives.items():
            start = clock()
            act()
            if round_number:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def cpu_seconds() -> float:
    """A clock that counts the CPU time of this process and of its children, once they have ended; it does not see neighbours."""
    return time.process_time() + sum(os.times()[2:4])


def synchronised(act: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """Return ``act`` followed by waiting for what it left to do on a GPU, so that a clock sees all of it."""

    def wait() -> None:
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return wait


def machine() -> dict[str, Any]:
    """Return what a reader has to know of this machine, and nothing that names it."""
    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    packages = ("torch", "numpy", "pillow")
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "cuda": cuda,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def gpu(device: torch.device) -> str:
    """Return the short name of a GPU, such as ``h200``, for the names of files; nothing on the CPU."""
    return torch.cuda.get_device_name(device).split()[1].lower() if device.type == "cuda" else ""


def publish(name: str, rows: Sequence[Mapping[str, Any]], **facts: object) -> None:
    """Print ``rows`` as an aligned table and write them with ``facts`` and the machine to ``bench/results/<name>.json``."""
    here = machine()
    console = Console(width=150)
    console.print(_table(name.replace("_", " "), rows))
    cuda = ", ".join(here["cuda"]) or "none"
    console.print(f"{here['cpu']}, {here['cpus']} CPUs; CUDA: {cuda}; torch {here['versions']['torch']}")
    rounded = [{key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    write_json(RESULTS / f"{name}.json", {"machine": here, "rows": rounded, **facts})


def over_encoders(name: str, doc: str, measure: Measure, *, larger: str, counted: tuple[str, int, str], rounds: int) -> None:
    """Run a benchmark from the command line with the embedded encoders and, where there is a GPU, the ``larger`` ones too.

    ``measure`` takes the encoders, a count, the rounds and the device, and returns rows; ``counted`` is the count's option, its
    default and what it is.
    """
    import torch

    from nullscope.core import ranks

    option, default, what = counted
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", choices=["embedded", larger], help=f"default: embedded, and {larger} where there is a GPU")
    parser.add_argument(f"--{option}", type=int, default=default, help=f"{what} (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds of interleaved timing (default: %(default)s)")
    options = parser.parse_args()
    device = ranks.device()
    sizes = [options.encoders] if options.encoders else ["embedded"] + [larger] * (device.type == "cuda")
    rows = [row for size in sizes for row in measure(size, getattr(options, option), options.rounds, device)]
    file = "-".join(filter(None, [name, options.encoders, gpu(device)]))
    publish(file, rows, rounds=options.rounds, device=device.type, threads=torch.get_num_threads())


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column, value in rows[0].items():
        table.add_column(column, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else f"{value}" for value in row.values()))
    return table


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
