"""Logits and features of images, the same by every door: the stage `score`, the command, Python.

An image's logit depends on the image alone (and its caption), to the last digit on one machine. A sum of floats is rounded
otherwise when the batch has another size: here by up to 1.4e-6 of a logit. So every forward pass of a machine has the same number
of images, whatever the detector is asked for. On the CPU that is one: nothing can depend on neighbours, and an image costs the
same alone and in company. On a GPU it is `GPU_BATCH`; a shorter batch is filled up by repeating its first image, and what is
computed for the copies is dropped. On the CPU a pass uses one thread, since a sum split among threads is rounded otherwise too;
the passes of several images run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from nullscope.core import lanes
from nullscope.core.contracts import feature_schema
from nullscope.detectors.base import Detector
from nullscope.shards.batch import Batch
from nullscope.shards.loading import Rows
from nullscope.tables.parquet import vector_table
from nullscope.tables.text import TextTable

GPU_BATCH = 64  # images of one forward pass
LOGITS = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("logit", pa.float32(), nullable=False)])
SCORED = LOGITS.append(pa.field("feature", pa.list_(pa.float32())))  # the logit, and what the classifier saw


def score(detector: Detector, rows: Rows, device: torch.device, text: TextTable | None = None) -> tuple[Tensor, Tensor]:
    """Return the logits (N,) of the images of ``rows``, in order, and the features (N, K) they are made of.

    Both float32 on the CPU; a logit above 0 means generated. ``text`` holds the captions' features, where the detector asks for
    them at inference. All is computed in float32, whatever the detector was trained in: in bf16 a logit has three digits, and
    many would be ties. The host fetches nothing from the device before the last batch is on its way.

    Raises `ValueError` if a logit is no number. Any comparison with it is false, so the image would count as real.
    """
    detector.eval()

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            feature_BK = detector.features(filled(batch, batch_size(device)).to(device, text)).float()
            return detector.classify(feature_BK).float()[: len(batch.image_ids)], feature_BK[: len(batch.image_ids)]

    places, batches = zip(*rows.batches(batch_size(device)), strict=True)
    with one_thread(device):
        passes = lanes.each(forward, batches) if device.type == "cpu" else [forward(batch) for batch in batches]
    back = torch.from_numpy(np.argsort(np.concatenate(places)))
    logit_N, feature_NK = (torch.cat(parts).cpu()[back] for parts in zip(*passes, strict=True))
    _check_numbers(logit_N, rows.image_ids)
    return logit_N, feature_NK


def _check_numbers(logit_N: Tensor, image_ids: Sequence[str]) -> None:
    wrong = torch.nonzero(~torch.isfinite(logit_N)).flatten().tolist()
    if wrong:
        named = f"image {image_ids[wrong[0]]}" if len(image_ids) > 1 else "the image"
        raise ValueError(
            f"the detector's logit of {named} is {logit_N[wrong[0]].item()} ({len(wrong)} of {len(logit_N)} are no numbers): "
            "no score; its weights are damaged, or its training has diverged"
        )


def logits(detector: Detector, rows: Rows, device: torch.device, text: TextTable | None = None) -> list[float]:
    """Return the logits of `score`."""
    return score(detector, rows, device, text)[0].tolist()


def batch_size(device: torch.device) -> int:
    """Return how many images every forward pass on ``device`` has."""
    return 1 if device.type == "cpu" else GPU_BATCH


def filled(batch: Batch, size: int) -> Batch:
    """Return a batch of ``size`` images: those of ``batch``, and copies of its first one behind them."""
    count = len(batch.image_ids)
    if count == size:
        return batch
    chosen = torch.tensor([*range(count), *[0] * (size - count)])
    inputs = {name: tensor[chosen] for name, tensor in batch.inputs.items()}
    return Batch(inputs, batch.is_fake_B[chosen], [batch.image_ids[place] for place in chosen.tolist()])


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Within it torch uses one thread of the CPU; afterwards as many as before. On a GPU nothing changes."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if device.type == "cpu":
            torch.set_num_threads(before)


def scored(detector: Detector, rows: Rows, keep: int, device: torch.device, text: TextTable | None) -> pa.Table:
    """Return a table of the schema `SCORED`; the features of the first ``keep`` images only."""
    logit_N, feature_NK = score(detector, rows, device, text)
    features = pa.array([*feature_NK[:keep].numpy(), *[None] * len(logit_N[keep:])], SCORED.field("feature").type)
    return pa.table([rows.image_ids, logit_N.numpy(), features], schema=SCORED)


def kept_features(table: pa.Table) -> pa.Table:
    """Return the features that a table of the schema `SCORED` has kept, as one of `contracts.feature_schema`."""
    kept = table.filter(pc.is_valid(table["feature"]))
    feature_NK = np.stack(kept["feature"].to_numpy())
    return vector_table(kept["image_id"].combine_chunks(), feature_NK, feature_schema(feature_NK.shape[1]))
