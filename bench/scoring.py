"""Scoring: the detector's forward pass alone, beside everything the stage `score` does, and beside a plain loop.

`forward` is the detector on batches that lie decoded in memory. `ours` reads shards through worker processes, scores them and
writes tables. The loop has one process read a tar with Pillow, normalise in float32 on the host, and fetch every logit. On the
CPU, `parent` is the CPU time of the process that holds the detector (the readers have cores of their own) and `all` that of the
readers too; on a GPU both are wall time. The aim is 90 % of the rate of the forward pass.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import cpu_seconds, median_seconds, over_encoders, synchronised
from PIL import Image
from samples import patches_of, photographs, world_pictures, write_clip, write_shards

from nullscope import detectors
from nullscope.core import ranks
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context, Detector
from nullscope.ops.patches import permute_patches
from nullscope.scoring import SCORED, score, scored
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import Shard
from nullscope.tables.parquet import write_table

PER_SHARD = 64
LOOP_BATCH = 64  # images of one pass of the plain loop


def score_shards(detector: Detector, shards: list[Shard], device: torch.device, workers: int, folder: Path) -> None:
    """What the stage does for one degradation."""
    for shard, rows in zip(shards, read_whole(shards, detector.transform, workers=workers), strict=True):
        write_table(folder / f"{shard.path.stem}.parquet", scored(detector, rows, 32, device, None), SCORED)


def loop(detector: Detector, shards: list[Shard], device: torch.device) -> list[float]:
    """Return the logits of a plain evaluation loop."""
    detector.eval()
    mean, std = (np.array(value, np.float32) for value in (detector.clip.mean, detector.clip.std))
    rng, found = torch.Generator().manual_seed(0), []
    for shard in shards:
        images = _mosaics(shard.path)
        for start in range(0, len(images), LOOP_BATCH):
            scaled = [torch.from_numpy((image / np.float32(255) - mean) / std) for image in images[start : start + LOOP_BATCH]]
            image_BCHW = torch.stack(scaled).permute(0, 3, 1, 2).contiguous().to(device)
            order_BN = torch.stack([torch.randperm(49, generator=rng) for _ in scaled]).to(device)
            with torch.no_grad():
                feature = detector.null_space(detector.clip.tower(permute_patches(image_BCHW, order_BN, grid=7)), None)
                found += [logit.item() for logit in detector.classify(feature)]
    return found


def _mosaics(path: Path) -> list[np.ndarray]:
    with tarfile.open(path) as tar:
        contents = [tar.extractfile(member).read() for member in tar if not member.name.endswith(".json")]
    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in contents]


def measure(size: str, count: int, rounds: int, device: torch.device) -> dict[str, object]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder, workers = Path(name), ranks.workers() if device.type == "cuda" else 1
        items = world_pictures(folder / "a", count) if size == "embedded" else photographs(folder / "a", 512, count)
        shards = write_shards(items, folder / "shards", "patches", patches_of(size), PER_SHARD)
        context = Context({"clip": write_clip(size, folder / "clip")}, patches_of(size))
        params = {**section_of(read_params(), "detectors.clip_lora"), "precision": "bf16" if device.type == "cuda" else "fp32"}
        detector = detectors.build("clip_lora", params, context, seed=0).to(device)
        held = list(read_whole(shards, detector.transform, workers=0))
        each: dict[str, Callable[[], object]] = {
            "forward": synchronised(lambda: [score(detector, rows, device) for rows in held], device),
            "ours": lambda: score_shards(detector, shards, device, workers, folder),
            "loop": lambda: loop(detector, shards, device),
        }
        on_cpu = device.type == "cpu"
        parent = median_seconds(each, rounds=rounds, clock=time.process_time if on_cpu else time.perf_counter)
        all_ = median_seconds({"ours": each["ours"]}, rounds=rounds, clock=cpu_seconds) if on_cpu else parent
    return {
        "encoders": size,
        "images": count,
        "forward images/s": count / parent["forward"],
        "ours images/s, parent": count / parent["ours"],
        "all": count / all_["ours"],
        "loop images/s": count / parent["loop"],
        "share of forward, parent": parent["forward"] / parent["ours"],
        "share, all": parent["forward"] / all_["ours"],
        "loop / ours": parent["loop"] / all_["ours"],
    }


def main() -> None:
    counted = "images", 512, "images of a round"
    over_encoders("scoring", __doc__, lambda *how: [measure(*how)], larger="vit_l_14", counted=counted, rounds=3)


if __name__ == "__main__":
    main()
