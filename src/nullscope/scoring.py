"""Logits and features of images. Both depend on the image alone (and its caption), to the rounding of a batched product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from nullscope.core.contracts import CLEAN, INDEX, SCORES, ContractError, feature_schema
from nullscope.detectors.base import Detector
from nullscope.shards.loading import Rows
from nullscope.tables.parquet import read_table, vector_table
from nullscope.tables.text import TextTable

BATCH_SIZE = 64  # images of one forward pass
LOGITS = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("logit", pa.float32(), nullable=False)])
JUDGED = LOGITS.append(pa.field("feature", pa.list_(pa.float32())))  # what a detector says, and what its classifier saw


def judge(detector: Detector, rows: Rows, device: torch.device, text: TextTable | None = None) -> tuple[Tensor, Tensor]:
    """Return the logits (N,) of the images of ``rows``, in order, and the features (N, K) they are made of.

    Both float32 on the CPU; a logit above 0 means generated. ``text`` holds the captions' features, where the detector asks for
    them at inference. In float32, whatever the detector was trained in: in bf16 a logit would depend on its batch by a hundredth,
    and many would be ties. Nothing is fetched before the last batch is on its way.
    """
    detector.eval()
    logit, feature, places = [], [], []
    for place, batch in rows.batches(BATCH_SIZE):
        places.append(place)
        with torch.inference_mode():
            feature.append(detector.features(batch.to(device, text)).float())
            logit.append(detector.classify(feature[-1]).float())
    back = torch.from_numpy(np.argsort(np.concatenate(places)))
    return torch.cat(logit).cpu()[back], torch.cat(feature).cpu()[back]


def logits(detector: Detector, rows: Rows, device: torch.device, text: TextTable | None = None) -> list[float]:
    """Return the logits of `judge`."""
    return judge(detector, rows, device, text)[0].tolist()


def judged(detector: Detector, rows: Rows, keep: int, device: torch.device, text: TextTable | None) -> pa.Table:
    """Return a table of the schema `JUDGED`; the features of the first ``keep`` images only."""
    logit_N, feature_NK = judge(detector, rows, device, text)
    features = pa.array([*feature_NK[:keep].numpy(), *[None] * len(logit_N[keep:])], JUDGED.field("feature").type)
    return pa.table([rows.image_ids, logit_N.numpy(), features], schema=JUDGED)


def kept_features(table: pa.Table) -> pa.Table:
    """Return the features that a table of the schema `JUDGED` has kept, as one of `contracts.feature_schema`."""
    kept = table.filter(pc.is_valid(table["feature"]))
    feature_NK = np.stack(kept["feature"].to_numpy())
    return vector_table(kept["image_id"].combine_chunks(), feature_NK, feature_schema(feature_NK.shape[1]))


def join_index(scored: pa.Table, index: Path, degradation: str = CLEAN) -> pa.Table:
    """Return one row of `contracts.SCORES` per test row of the index, in its order: an image in two subsets is scored once.

    ``scored`` has the columns of `LOGITS`. Raises `ContractError` unless every test image has exactly one logit.
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
    named = pa.array([degradation] * len(test), pa.string())
    return pa.table([test["image_id"], test["split"], test["subset"], test["label"], named, logit], schema=SCORES)
