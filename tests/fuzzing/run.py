"""Feed mutated files to every reader of what the world sends. Anything but an answer or a documented error is a finding.

usage: python tests/fuzzing/run.py [TARGET ...] [--seed 0] [--mutants 200 | --seconds 3600] [--keep FOLDER]

A mutant is named by its target, the seed and its number, and comes out the same on every machine:
`python tests/fuzzing/run.py png --seed 3 --only 4711 --keep found` writes it again and reads it. A finding is: another error,
more than `SLOW_S` seconds, more memory than `MEMORY_BYTES`, or an answer that contradicts itself. With any it ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzing.mutations import mutant
from fuzzing.targets import TARGETS, Target

SLOW_S = 10  # for one mutant; the files are of some kilobytes
ENOUGH = 20  # findings of a target, which is then left
MEMORY_BYTES = 3 * 2**30  # of data, for a process with all libraries in it


class TooSlow(BaseException):
    """A mutant takes more than `SLOW_S`. No `Exception`, so that no reader takes it for a fault of the file."""


@dataclass
class Result:
    """What came of the mutants of one target."""

    target: str
    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    findings: list[str] = field(default_factory=list)  # "<number>: <error>"


def _ring(_: int, frame: FrameType | None) -> None:
    raise TooSlow(f"{SLOW_S} seconds")


def rng_of(target: Target, seed: int, number: int) -> np.random.Generator:
    """The generator that a mutant is drawn from."""
    return np.random.default_rng([seed, sum(target.name.encode()), number])


def fuzz(target: Target, seed: int, numbers: range, seconds: float, keep: Path | None, progress: Path | None = None) -> Result:
    """Read mutants until they or the time are at an end. ``progress`` gets the number of each before it is read."""
    result, corpus, end = Result(target.name), target.corpus(), time.monotonic() + seconds
    signal.signal(signal.SIGALRM, _ring)
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            if time.monotonic() > end or len(result.findings) == ENOUGH:
                break
            data = mutant(corpus, rng_of(target, seed, number))
            if progress:
                progress.write_text(str(number))
            began = time.monotonic()
            signal.alarm(SLOW_S)
            try:
                if target.read(data, Path(folder)):
                    result.read += 1
                else:
                    result.refused += 1
            except (Exception, TooSlow) as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                words = f"{type(error).__name__}: {error}"[:200]
                result.findings.append(f"{number}: {words} ({Path(where.filename).name}:{where.lineno})")
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{target.name}-{seed}-{number}").write_bytes(data)
            finally:
                signal.alarm(0)
            result.slowest_s = max(result.slowest_s, time.monotonic() - began)
    return result


def _in_process(out: Path, name: str, *arguments: object) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    result = fuzz(TARGETS[name], *arguments, progress=out.with_suffix(".number"))
    out.write_text(json.dumps(asdict(result)))


def fuzz_apart(name: str, seed: int, numbers: range, seconds: float, keep: Path | None) -> Result:
    """`fuzz` in a process of its own, so that a crash of it is a finding like others."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        process = multiprocessing.get_context("spawn").Process(target=_in_process, args=(out, name, seed, numbers, seconds, keep))
        process.start()
        process.join()
        if out.exists():
            return Result(**json.loads(out.read_text()))
        number = out.with_suffix(".number").read_text() if out.with_suffix(".number").exists() else "before the first"
        return Result(name, findings=[f"{number}: the process ended with {process.exitcode}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutants", type=int, default=200, help="of every target (default: 200)")
    parser.add_argument("--seconds", type=float, help="in all, shared by the targets, in place of --mutants")
    parser.add_argument("--only", type=int, help="the number of one mutant")
    parser.add_argument("--keep", type=Path, help="folder for the mutants that were found")
    args = parser.parse_args()
    if unknown := [name for name in args.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}; known: {', '.join(TARGETS)}")
    names = args.targets or list(TARGETS)
    numbers = range(args.only, args.only + 1) if args.only is not None else range(10**9 if args.seconds else args.mutants)
    seconds = args.seconds / len(names) if args.seconds else float("inf")
    print(f"{'target':16} {'read':>8} {'refused':>8} {'slowest s':>10} {'findings':>9}", flush=True)
    found = []
    for name in names:
        result = fuzz_apart(name, args.seed, numbers, seconds, args.keep)
        found += [f"{name} {finding}" for finding in result.findings]
        print(f"{name:16} {result.read:8} {result.refused:8} {result.slowest_s:10.2f} {len(result.findings):9}", flush=True)
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
