"""inventory: list the data set's folder with a hash per file, so that DVC sees whether anything changed.

usage: inventory.py    reads `dataset`, writes data/inventory.csv; remembers hashes in .nullscope/hashes.sqlite
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from nullscope.core.config import load_params
from nullscope.core.ranks import launch, workers
from nullscope.sources.dataset import DatasetParams
from nullscope.sources.inventory import build_inventory

INVENTORY, CACHE = Path("data/inventory.csv"), Path(".nullscope/hashes.sqlite")


def main() -> None:
    """List the data set of params.yaml and print how many files there are and how many had to be hashed."""
    params = load_params("dataset", DatasetParams)
    with tqdm(desc=f"inventory {params.name}", unit=" files") as bar:
        counts = build_inventory(params, path=INVENTORY, cache_path=CACHE, workers=workers(), progress=bar.update)
    remembered = counts["files"] - counts["hashed"]
    print(f"{counts['files']} files ({counts['hashed']} hashed, {remembered} remembered) -> {INVENTORY}")
    print(f"{counts['refused']} files refused; {INVENTORY} gives the reasons")


if __name__ == "__main__":
    launch(main, alone=True)
