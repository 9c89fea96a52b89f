"""Reading shards: our loader beside a loop over the tar with Pillow, and beside decoding alone, per core.

CPU time, one thread. `limit` is our decoder on bytes in memory: no reader of images is faster. `loop` is what one writes without
a library: `tarfile`, `Image.open(...).convert("RGB")`, and no transform. `ours` is what a stage gets: samples checked, transform
applied (patch order drawn, or a window cut), stacked to tensors; `+ worker` the same through a worker process, the CPU time of
both added up. The aim is 80 % of the limit.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import cpu_seconds, median_seconds, publish
from PIL import Image
from samples import patches_of, photographs, world_pictures, write_shards

from nullscope.images.decoder import decode
from nullscope.images.transforms import PatchMosaic, Transform, WholeImage
from nullscope.shards.loading import ANY_SIZE, read_whole
from nullscope.shards.reading import Shard, decode_mosaic, read_shard

PER_SHARD = 48
REPEATS = 16  # how often the worker reads the shards: its start should not count


def loop(shards: list[Shard]) -> None:
    """Read the images of all tars without a library."""
    for shard in shards:
        with tarfile.open(shard.path) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if not member.name.endswith(".json"):
                    pillow(data)


def pillow(data: bytes) -> np.ndarray:
    """Decode as everybody does."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read(shards: list[Shard], transform: Transform, workers: int) -> None:
    """Read as a stage does, letting go of each shard before the next."""
    for _ in read_whole(shards, transform, workers=workers):
        pass


def measure(name: str, shards: list[Shard], transform: Transform, rounds: int) -> dict[str, object]:
    """Return one row of the table."""
    contents = [data for shard in shards for _, _, data in read_shard(shard.path)]
    decoder = decode_mosaic if transform.kind == "patches" else lambda data: decode(data, max_pixels=ANY_SIZE)
    each: dict[str, Callable[[], object]] = {
        "limit": lambda: [decoder(data) is None for data in contents],
        "pillow": lambda: [pillow(data) is None for data in contents],
        "tar": lambda: [sum(1 for _ in read_shard(shard.path)) for shard in shards],
        "loop": lambda: loop(shards),
        "ours": lambda: read(shards, transform, workers=0),
    }
    us = {key: 1e6 * value / len(contents) for key, value in median_seconds(each, rounds=rounds, clock=cpu_seconds).items()}
    worker = median_seconds(
        {"": lambda: read(shards * REPEATS, transform, workers=1)}, rounds=max(1, rounds // 3), clock=cpu_seconds
    )
    us["+ worker"] = 1e6 * worker[""] / len(contents) / REPEATS
    return {
        "shards": name,
        **{f"{key} us": value for key, value in us.items()},
        "limit / ours": us["limit"] / us["ours"],
        "limit / worker": us["limit"] / us["+ worker"],
        "loop / ours": us["loop"] / us["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of interleaved timing (default: %(default)s)")
    parser.add_argument("--images", type=int, default=96, help="images of each kind (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = world_pictures(folder / "world", options.images)
        photos = photographs(folder / "photographs", 512, options.images)
        mosaic, window = PatchMosaic(49, 0.0), WholeImage(None, 224, 224, 0.0)
        embedded, paper = patches_of("embedded"), patches_of("vit_l_14")
        cases = {
            "mosaics, 112 px": (write_shards(world, folder / "a", "patches", embedded, PER_SHARD), mosaic),
            "mosaics, 224 px": (write_shards(photos, folder / "b", "patches", paper, PER_SHARD), mosaic),
            "originals, 128 px": (
                write_shards(world, folder / "c", "images", embedded, PER_SHARD),
                WholeImage(None, 112, 112, 0.0),
            ),
            "originals, 512 px": (write_shards(photos, folder / "d", "images", paper, PER_SHARD), window),
        }
        rows = [measure(case, shards, transform, options.rounds) for case, (shards, transform) in cases.items()]
    publish("shard_reading", rows, rounds=options.rounds, images=options.images, threads=1, clock="CPU time of all processes")


if __name__ == "__main__":
    main()
