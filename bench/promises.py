"""What a threshold promises against what it keeps, on many embedded worlds.

usage: python bench/promises.py --model models/ns_net-0 [--model ...] [--reals 8000] [--worlds 2000]

Reals of another embedded world are rendered and scored. A small world has some of them as its validation split, and a threshold
is set on these; the reals that were not drawn say what the threshold keeps. In 93 to 97 of 100 worlds the interval of the promise
should hold that rate; with 1,000 of 8,000 reals in 93 to 94, since the rate of the other 7,000 is not known exactly. The last
column is of the model itself: the false alarms, on all these reals, of the threshold of 5 % that its own validation split set.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measure import publish
from numpy.typing import NDArray
from samples import write_test_world

from nullscope import load
from nullscope.core import launcher
from nullscope.decision import RATE, RATES, promise
from nullscope.model_facts import read_validation
from nullscope.world.render import REALS

SIZES = (120, 300, 1000)  # reals of a validation split; the default world has 120
SEED = 1000  # of the other world


def render_reals(folder: Path, count: int) -> list[Path]:
    """Write so many reals of another world; return their paths."""
    write_test_world(folder, count, 1, workers=launcher.cpus(), seed=SEED)
    return sorted((folder / "test" / REALS).rglob("*.*"))


def kept(logit_N: NDArray[np.float64], size: int, rate: float, worlds: int) -> tuple[float, float]:
    """Return the share of worlds whose interval holds the rate that is kept, and the mean rate."""
    draws, held, rates = np.random.default_rng([size, int(1000 * rate)]), [], []
    for _ in range(worlds):
        mixed_N = draws.permutation(logit_N)
        own = promise(mixed_N[:size], rate)
        rates.append(float((mixed_N[size:] > own.threshold).mean()))
        held.append(own.low <= rates[-1] <= own.high)
    return float(np.mean(held)), float(np.mean(rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", required=True, help="Model folder; repeatable.")
    parser.add_argument("--reals", type=int, default=8000, help="of the other world (default: %(default)s)")
    parser.add_argument("--worlds", type=int, default=2000, help="drawn for every cell (default: %(default)s)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        reals = render_reals(Path(name) / "world", options.reals)
        for model in options.model:
            logit_N = np.array([verdict.logit for verdict in load(model, anyway=True).predict_many(reals)])
            own = (logit_N > promise(read_validation(model).real, RATE).threshold).mean()
            for rate in RATES:
                for size in SIZES:
                    held, mean = (100 * value for value in kept(logit_N, size, rate, options.worlds))
                    row = {"model": model.name, "promised %": 100 * rate, "validation reals": size, "held, of 100": held}
                    rows.append({**row, "kept on average %": mean, "its own 5 %, kept %": 100 * float(own)})
    publish("promises", rows, reals=options.reals, worlds=options.worlds)


if __name__ == "__main__":
    main()
