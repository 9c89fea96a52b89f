"""Logits and features of images. Both depend on the image alone (and its caption), to the rounding of a batched product."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from nullscope.contracts import CLEAN, INDEX, SCORES, ContractError, feature_schema
from nullscope.data.loading import Rows
from nullscope.data.tables import read_table
from nullscope.data.text import TextTable
from nullscope.detectors.base import Detector

BATCH_SIZE = 64  # images of one forward pass
LOGITS = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("logit", pa.float32(), nullable=False)])


def logits(detector: Detector, rows: Rows, device: torch.device, text: TextTable | None = None) -> list[float]:
    """Return the logit of every image of ``rows``, in order, computed in float32; above 0 means generated.

    ``text`` holds the captions' features, where the detector asks for them at inference.
    """
    detector.eval()
    scored: list[float] = []
    for batch in rows.batches(BATCH_SIZE):
        with torch.inference_mode():
            scored += detector(batch.to(device, text)).float().tolist()
    return scored


def features(detector: Detector, rows: Rows, device: torch.device, text: TextTable | None = None) -> pa.Table:
    """Return what the classifier sees of every image of ``rows``, as a table of `contracts.feature_schema`."""
    detector.eval()
    seen = []
    for batch in rows.batches(BATCH_SIZE):
        with torch.inference_mode():
            seen.append(detector.features(batch.to(device, text)).float().cpu())
    feature_BK = torch.cat(seen)
    width = feature_BK.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(feature_BK.flatten().numpy()), width)
    return pa.table([rows.image_ids, column], schema=feature_schema(width))


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
