"""Does reading feed the training? The whole loop of `nullscope.training` on shards, beside reading alone and beside steps alone.

NS-Net, batch 32, bf16 on a GPU. Every row is one number of worker processes: `reading` is what they bring where nobody trains,
`training` the whole loop; without workers it is the loop on batches that lie in memory. Wall time, from the first fetch of losses
on: by then the workers run. A few files are read again and again: decoding is measured, the disk is not.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

import torch
from measure import over_encoders
from samples import patches_of, photographs, world_pictures, write_clip, write_shards

from nullscope import detectors
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context, Detector
from nullscope.shards.batch import Batch
from nullscope.shards.loading import training_batches
from nullscope.shards.reading import Shard
from nullscope.tables.listing import Item
from nullscope.tables.text import TextTable
from nullscope.training import FETCH, Data, Training

FILES, PER_SHARD = 128, 64
HELD = 32  # batches in memory


def pictures(size: str, folder: Path) -> list[Item]:
    """Write `FILES` pictures as large as these encoders are for."""
    return world_pictures(folder, FILES) if size == "embedded" else photographs(folder, 512, FILES)


def ns_net(size: str, clip: Path, **changes: object) -> Detector:
    """Return a fresh NS-Net."""
    params = {**section_of(read_params(), "detectors.ns_net"), **changes}
    return detectors.build("ns_net", params, Context({"clip": clip}, patches_of(size)), seed=0)


def training_of(detector: Detector, shards: list[Shard], ids: list[str], device: torch.device, workers: int = 0) -> Training:
    """Return a training with random features for captions."""
    text_ND = torch.randn(len(ids), detector.clip.width, generator=torch.Generator().manual_seed(0))
    data = Data(shards, TextTable(ids, text_ND, "the benchmark"), workers)
    return Training(detector, data, seed=0, device=device, scratch=shards[0].path.parent / "none", checkpoint_s=1e9)


def training_rate(run: Training) -> float:
    """Return images/s of the steps after the first fetch."""
    times = [time.perf_counter() for _ in run.run()]
    return (len(times) - FETCH) * run.detector.params.batch_size / (times[-1] - times[FETCH - 1])


def reading_rate(batches: Iterator[Batch]) -> float:
    """Return images/s of the batches after as many as a training fetches the losses of."""
    sum(1 for _ in islice(batches, FETCH))
    start = time.perf_counter()
    return sum(len(batch.image_ids) for batch in batches) / (time.perf_counter() - start)


def measure(size: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row of the table for every number of workers."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = pictures(size, folder / "a")
        shards = write_shards(items, folder / "shards", "patches", patches_of(size), PER_SHARD) * (count // FILES)
        clip, ids = write_clip(size, folder / "clip"), [item.image_id for item in items]
        detector = ns_net(size, clip, epochs=1, precision="bf16" if device.type == "cuda" else "fp32")

        def batches(workers: int, times: int = 1) -> Iterator[Batch]:
            return training_batches(shards * times, detector.transform, batch_size=32, seed=0, epoch=0, skip=0, workers=workers)

        held = list(islice(batches(0), HELD))
        with patch.object(Training, "_batches", lambda run, phase: islice(cycle(held), count // 32)):
            rows.append([0, "in memory", training_rate(training_of(detector, shards, ids, device))])
        cpus = len(os.sched_getaffinity(0))
        for workers in sorted({1, cpus // 2, cpus - 1}):
            reading = reading_rate(batches(workers, times=workers))  # so long that what was read ahead does not count
            rows.append([workers, reading, training_rate(training_of(detector, shards, ids, device, workers))])
    columns = "workers", "reading images/s", "training images/s"
    return [{"encoders": size, "images": count, **dict(zip(columns, row, strict=True))} for row in rows]


def main() -> None:
    over_encoders("feeding", __doc__, measure, larger="vit_l_14", counted=("images", 2560, "images of an epoch"), rounds=1)


if __name__ == "__main__":
    main()
