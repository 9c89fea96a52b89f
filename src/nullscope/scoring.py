"""Logits of images. An image's logit depends on the image alone, to the rounding of a batched product."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from nullscope.contracts import CLEAN, INDEX, SCORES, ContractError
from nullscope.data.loading import Rows
from nullscope.data.tables import read_table
from nullscope.detectors.base import Detector

BATCH_SIZE = 64  # images of one forward pass
LOGITS = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("logit", pa.float32(), nullable=False)])


def logits(detector: Detector, rows: Rows, device: torch.device) -> list[float]:
    """Return the logit of every image of ``rows``, in order, computed in float32; above 0 means generated."""
    detector.eval()
    scored: list[float] = []
    for batch in rows.batches(BATCH_SIZE):
        with torch.inference_mode():
            scored += detector(batch.to(device)).float().tolist()
    return scored


def join_index(scored: pa.Table, index: Path) -> pa.Table:
    """Return one row of `contracts.SCORES` per test row of the index, in its order: an image in two subsets is scored once.

    ``scored`` is of the schema `LOGITS`. Raises `ContractError` unless every test image has exactly one logit.
    """
    rows = read_table(index, INDEX, columns=["image_id", "split", "subset", "label"])
    test = rows.filter(pc.equal(rows["split"], "test"))
    listed, found = len(pc.unique(test["image_id"])), len(pc.unique(scored["image_id"]))
    if len(scored) != found:
        raise ContractError(f"{len(scored)} logits of {found} images: an image was scored twice")
    place = pc.index_in(test["image_id"], scored["image_id"])
    if place.null_count or found != listed:
        raise ContractError(f"{index} lists {listed} test images, the shards hold {found}; run `dvc repro shard`")
    logit = scored["logit"].combine_chunks().take(place)
    degradation = pa.array([CLEAN] * len(test), pa.string())
    return pa.table([test["image_id"], test["subset"], test["label"], degradation, logit], schema=SCORES)
