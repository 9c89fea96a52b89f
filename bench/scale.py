"""What a number of images needs: tars, bytes, hours per stage on one rank and on many, memory. Arithmetic on measured rates.

usage: python bench/scale.py [--images 300000 10000000 1000000000] [--ranks 1 64] [--set train_per_second=900 ...]

A rate comes from bench/results/*.json where a benchmark has measured it, else from the defaults below, which --set replaces; each
is printed as measured, assumed or given. A rank is a process with one accelerator and `workers` CPU cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from measure import RESULTS, publish
from rich.console import Console
from rich.table import Table

HOUR = 3600.0
MAPPED = ("text",)  # jobs of memory.json whose peak holds pages of a mapped file, which the kernel takes back


@dataclass(frozen=True)
class Rate:
    """A number of the arithmetic, and where it is from."""

    value: float
    source: str  # measured, assumed or given, and by what


ASSUMED = {
    "image_bytes": (100_000, "an original; 512 px JPEGs are 60 to 150 kB"),
    "mosaic_bytes": (57_000, "224 px, lossless WebP; 60 mosaics, once, here"),
    "text_bytes": (2_630, "768 float32, zstd on split bytes: 0.86 of raw; fabricated, once"),
    "score_bytes": (39, "a row of scores/<run>.parquet; fabricated, once"),
    "index_bytes": (46, "a row of index.parquet; fabricated, once"),
    "samples": (1_000, "images per tar; `shard.samples` is 128 in the embedded world"),
    "test_share": (0.5, "of the images; each is in one split"),
    "degradations": (0, "states beside the image as it is"),
    "epochs": (1, "of a training on all training images"),
    "workers": (8, "CPU cores per rank"),
    "decode_ms": (6.0, "a JPEG, one core"),
    "select_ms": (6.0, "patch selection, one core"),
    "write_ms": (3.2, "a mosaic as lossless WebP, one core; once, here"),
    "caption_per_second": (100, "BLIP base on one accelerator"),
    "embed_per_second": (5_000, "CLIP's text tower on one accelerator"),
    "train_per_second": (250, "ViT-L/14 with LoRA, bf16, on one accelerator"),
    "score_per_second": (250, "the same, forward alone, float32"),
    "sort_rows_per_second": (20_000, "the index behind the decoding, one process"),
    "evaluate_rows_per_second": (14_000, "1000 resamples, one process"),
}

Results = Mapping[str, Mapping[str, Any]]  # name of a file of bench/results -> what it holds


def of_pixels(column: str) -> Callable[[Results], float]:
    """The mean over photographs of 512 px in patch_selection.json."""
    return lambda found: mean(row[column] for row in found["patch_selection"]["rows"] if row["side px"] == 512)


def of_memory(job: str) -> Callable[[Results], float]:
    """The rate of a job of memory.json."""
    return lambda found: next(row["rows/s"] for row in found["memory"]["rows"] if row["job"] == job)


def of_training(found: Results) -> float:
    """The slowest detector's step with ViT-L/14 in bf16, 32 images, on the GPU that was measured."""
    steps = [row for row in _large(found["training_step-h200"]) if (row["ours"], row["batch"]) == ("bf16", 32)]
    return min(row["ours images/s"] for row in steps)


def of_scoring(found: Results) -> float:
    """The forward pass of scoring with ViT-L/14 in float32, on the GPU that was measured."""
    return min(row["forward images/s"] for row in _large(found["scoring-h200"]))


def _large(measured: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in measured["rows"] if row["encoders"] == "vit_l_14"]


MEASURED: dict[str, tuple[str, Callable[[Results], float]]] = {
    "image_bytes": ("patch_selection", lambda found: 1000 * of_pixels("jpeg kB")(found)),
    "decode_ms": ("patch_selection", of_pixels("decode ms")),
    "select_ms": ("patch_selection", of_pixels("select ms")),
    "train_per_second": ("training_step-h200", of_training),
    "score_per_second": ("scoring-h200", of_scoring),
    "sort_rows_per_second": ("memory", of_memory("sort_index")),
    "evaluate_rows_per_second": ("memory", of_memory("evaluate")),
}


def read_results(folder: Path = RESULTS) -> Results:
    """Return what the benchmarks have left."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def rates(found: Results, given: Mapping[str, float]) -> dict[str, Rate]:
    """Return every number: given, or measured, or assumed. Raises `ValueError` on one that is not known."""
    if unknown := sorted(set(given) - set(ASSUMED)):
        raise ValueError(f"--set: no number {', '.join(unknown)}; known: {', '.join(ASSUMED)}")
    values = {name: Rate(value, f"assumed: {why}") for name, (value, why) in ASSUMED.items()}
    for name, (file, read) in MEASURED.items():
        try:
            values[name] = Rate(read(found), f"measured: {file}.json")
        except (KeyError, StopIteration, ValueError):  # not measured here, or another version's file
            continue
    return values | {name: Rate(value, "given") for name, value in given.items()}


def bytes_of(images: int, number: Mapping[str, float]) -> dict[str, float]:
    """Return tars and bytes on the disk; scores and features of one detector."""
    test = images * number["test_share"]
    return {
        "tars": 2 * images / number["samples"],
        "index": images * number["index_bytes"],
        "originals": images * number["image_bytes"],
        "mosaics": images * number["mosaic_bytes"],
        "text": images * number["text_bytes"],
        "scores": test * (1 + number["degradations"]) * number["score_bytes"],
    }


def hours_of(images: int, ranks: int, number: Mapping[str, float]) -> dict[str, float]:
    """Return the hours of every stage; `index`, `train` and `evaluate` run in one process (training is for one detector)."""
    test = images * number["test_share"]
    states = 1 + number["degradations"]
    cores = number["workers"] * ranks
    write = number["decode_ms"] + number["select_ms"] + number["write_ms"]
    shared = {
        "caption": images / number["caption_per_second"] / ranks,
        "shard": images * write / 1000 / cores,
        "embed": images / number["embed_per_second"] / ranks,
        "score": test * states / number["score_per_second"] / ranks,
    }
    alone = {
        "index": images * number["decode_ms"] / 1000 / number["workers"] + images / number["sort_rows_per_second"],
        "train": (images - test) * number["epochs"] / number["train_per_second"],
        "evaluate": test * states / number["evaluate_rows_per_second"],
    }
    return {stage: seconds / HOUR for stage, seconds in (shared | alone).items()}


def memory_of(images: int, found: Results) -> dict[str, float]:
    """Return the peak in GB of every job of memory*.json at this number of rows, from its two lengths; none where not measured.

    ``memory-<name>.json`` goes before ``memory.json``: the same job at other lengths.
    """
    peaks = {}
    for file in sorted(name for name in found if name.startswith("memory")):
        base = max(found[file]["rows_measured"])
        for row in found[file]["rows"]:
            growth = row["B/row, own" if row["job"] in MAPPED else "B/row, peak"]
            grown = max(growth, 0) * max(images - base, 0)
            peaks[row["job"]] = (row[f"peak MB at {base:,}"] * 1e6 + grown) / 1e9
    return peaks


def rows_of(lengths: Sequence[int], ranks: Sequence[int], numbers: Mapping[str, float], found: Results) -> list[dict[str, Any]]:
    """Return the table: a line per quantity, a column per number of images."""
    lines: dict[tuple[str, str], dict[str, float]] = {}
    for images in lengths:
        column = f"{images:,}"
        for name, value in bytes_of(images, numbers).items():
            lines.setdefault((name, "" if name == "tars" else "GB"), {})[column] = value / (1 if name == "tars" else 1e9)
        for count in ranks:
            for stage, value in hours_of(images, count, numbers).items():
                lines.setdefault((f"{stage}, {count} rank{'s' * (count > 1)}", "h"), {})[column] = value
        for job, value in memory_of(images, found).items():
            lines.setdefault((f"memory of {job}", "GB"), {})[column] = value
    return [{"what": what, "unit": unit, **values} for (what, unit), values in lines.items()]


def show(used: Mapping[str, Rate]) -> None:
    """Print every number and where it is from."""
    table = Table("number", "value", "from", title="the numbers it rests on", title_justify="left")
    for name, rate in used.items():
        table.add_row(name, f"{rate.value:,.6g}", rate.source)
    Console(width=130).print(table)


def pair(text: str) -> tuple[str, float]:
    """Read ``name=number``."""
    name, _, value = text.partition("=")
    return name, float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[300_000, 10_000_000, 1_000_000_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--set", type=pair, nargs="+", default=[], metavar="NAME=NUMBER")
    options = parser.parse_args()
    found = read_results()
    try:
        used = rates(found, dict(options.set))
    except ValueError as error:
        parser.error(str(error))
    show(used)
    rows = rows_of(options.images, options.ranks, {name: rate.value for name, rate in used.items()}, found)
    publish("scale", rows, numbers={name: vars(rate) for name, rate in used.items()})


if __name__ == "__main__":
    main()
