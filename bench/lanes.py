"""All CPUs of a machine in training and scoring: lanes, torch's own threads, and one CPU, in turns; alone and beside other work.

Lanes (`nullscope.core.lanes`) are what nullscope does: micro-batches of a training step and images that are scored, side by side.
torch's own threads share every operation instead. The other work is one process per CPU that computes without a pause. Wall
time, since that is what all CPUs are for. For the CPU alone, with the embedded encoders.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from measure import median_seconds, publish
from samples import patches_of, world_pictures, write_clip, write_shards
from training_step import our_step, random_batch

from nullscope import detectors, scoring
from nullscope.core import launcher
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context
from nullscope.shards.loading import read_whole

CPU = torch.device("cpu")
IMAGES = 64  # scored in a round
BATCH = 32
Act = Callable[[], object]


def busy() -> None:
    """Compute until somebody stops it."""
    number = 0
    while True:
        number += 1


@contextmanager
def other_work(processes: int) -> Iterator[None]:
    """Within it so many processes compute."""
    running = [multiprocessing.get_context("spawn").Process(target=busy, daemon=True) for _ in range(processes)]
    for process in running:
        process.start()
    try:
        yield
    finally:
        for process in running:
            process.kill()


def on(cpus: int, threads: int, act: Act) -> Act:
    """Return ``act`` with lanes on ``cpus``, and with so many of torch's threads in every operation."""

    def limited() -> None:
        launcher.cpus = lambda: cpus
        scoring.one_thread = lambda device: nullcontext()  # it would set the threads back to one
        torch.set_num_threads(threads)
        act()

    return limited


def acts(folder: Path) -> dict[str, Act]:
    """Return a training step and a scoring by name."""
    clip = write_clip("embedded", folder / "clip")
    detector = detectors.build(
        "ns_net", section_of(read_params(), "detectors.ns_net"), Context({"clip": clip}, patches_of("embedded")), seed=0
    )
    detector.see_captions(iter([torch.randn(64, detector.clip.width)]))
    step = our_step(detector, random_batch("embedded", BATCH, detector.clip.width), CPU, bf16=False)
    shards = write_shards(world_pictures(folder / "a", IMAGES), folder / "shards", "patches", patches_of("embedded"), IMAGES)
    [rows] = read_whole(shards, detector.transform, workers=0)
    return {"training step": lambda: (detector.train(), step()), "scoring": lambda: scoring.score(detector, rows, CPU)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of interleaved timing (default: %(default)s)")
    options = parser.parse_args()
    cpus, rows = len(os.sched_getaffinity(0)), []
    with tempfile.TemporaryDirectory() as name:
        for what, act in acts(Path(name)).items():
            each = {"one": on(1, 1, act), "lanes": on(cpus, 1, act), "threads": on(1, cpus, act)}
            images = BATCH if what == "training step" else IMAGES
            for beside, processes in (("nothing", 0), ("a process per CPU", cpus)):
                with other_work(processes):
                    seconds = median_seconds(each, rounds=options.rounds)
                rates = {f"{how}, images/s": images / value for how, value in seconds.items()}
                ratios = {f"{how} / one": seconds["one"] / seconds[how] for how in ("lanes", "threads")}
                rows.append({"what": what, "beside": beside, **rates, **ratios})
    publish("lanes", rows, rounds=options.rounds, clock="wall", cpus=cpus)


if __name__ == "__main__":
    main()
