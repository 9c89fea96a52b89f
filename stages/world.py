"""world: render the embedded world, a small data set of real and generated pictures.   usage: world.py"""

from __future__ import annotations

from pathlib import Path

from nullscope.core import ranks
from nullscope.core.config import load_params
from nullscope.world.render import WorldParams, write_world

WORLD = Path("data/world")


def main() -> None:
    params = load_params("dataset.world", WorldParams)
    counts = write_world(params, WORLD, workers=ranks.workers())
    for subset, count in sorted(counts.items()):
        print(f"{subset:20} {count:6}")
    print(f"{WORLD}: {sum(counts.values())} pictures")


if __name__ == "__main__":
    ranks.launch(main, alone=True)
