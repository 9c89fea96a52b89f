"""index: read every file of the data set; one row per image, one line per refused file.

usage: index.py    reads `dataset` and `patches.patch_px`, writes data/index.parquet, data/rejects.csv, metrics/index.json
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from nullscope.core.config import load_params, read_params, section_of
from nullscope.core.contracts import SPLITS
from nullscope.core.files import write_json
from nullscope.core.ranks import launch, workers
from nullscope.core.streams import printable
from nullscope.sources.dataset import DatasetParams
from nullscope.sources.index import build_index

INDEX, REJECTS, METRICS = Path("data/index.parquet"), Path("data/rejects.csv"), Path("metrics/index.json")


def main() -> None:
    """Index the data set of params.yaml and print what was read, written, refused and ignored."""
    params = load_params("dataset", DatasetParams)
    patch_px = section_of(read_params(), "patches.patch_px")
    with tqdm(desc=f"index {params.name}", unit=" files") as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        counts = build_index(
            params, min_side_px=patch_px, index_path=INDEX, rejects_path=REJECTS, workers=workers(), progress=advance
        )
    write_json(METRICS, counts)
    report(counts)


def report(counts: dict) -> None:
    """Print the counts as a table."""
    for split in SPLITS:
        for subset, images in sorted(counts[split].items()):
            print(printable(f"{split:5}  {subset:24} {images['real']:8} real {images['fake']:8} fake"))
    for split, subsets in counts["unexpected"].items():
        for subset, found in subsets.items():
            print(f"not as published  {split:5}  {subset:24} {_against(found)}")
    shared = ", ".join(f"{images} in {pair.replace('_', ' and ')}" for pair, images in counts["leakage_between"].items())
    print(f"{counts['images']} images ({counts['duplicates']} repeated; {shared}) -> {INDEX}")
    if not counts["val"]:
        print("warning: no validation images, so no threshold can be chosen; set dataset.val or dataset.val_fraction")
    for why, folders in counts["ignored"].items():
        for folder, files in folders.items():
            print(printable(f"ignored {files:8}  {why.replace('_', ' ')}: {folder}"))
    print(f"{counts['refused']} files refused -> {REJECTS}")
    with open(REJECTS, encoding="utf-8", newline="") as file:
        kinds = Counter(re.sub(r"\d+", "N", row["reason"]) for row in csv.DictReader(file))
    for kind, files in kinds.most_common():
        print(printable(f"refused {files:8}  {kind}"))


def _against(found: dict[str, int]) -> str:
    """Return what a subset holds beside what was published of it."""
    if not found["real"] + found["fake"]:
        return "is missing"
    return ", ".join(f"{found[kind]} {kind}s (published: {found[f'{kind}_published']})" for kind in ("real", "fake"))


if __name__ == "__main__":
    launch(main, alone=True)
