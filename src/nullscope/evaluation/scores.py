"""Reading scores. The only function that opens a file of scores for a number: it keeps the rows of the test split.

A file of scores also holds the validation images, on which thresholds and epochs are chosen. None of them may reach a number that
is reported as a result of the test.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nullscope.core.contracts import CLEAN, FAKE, SCORES, ContractError
from nullscope.tables.parquet import read_table

TEST, VAL = "test", "val"
CHUNK = 65_536  # rows of which Python's own strings are in memory at a time
IndexGroup = tuple[str, str, str, int]  # split, subset, generator, label


@dataclass(frozen=True)
class Scores:
    """The logits of one run for N test images as they are, without degradation."""

    is_fake_N: NDArray[np.bool_]
    is_seen_N: NDArray[np.bool_]  # whether the image's subset has fakes of a generator of the training split
    logit_N: NDArray[np.float32]


def read_test_scores(path: Path, *, clean_only: bool = False) -> pa.Table:
    """Return the rows of the test split of ``scores/<run>.parquet`` (`contracts.SCORES`), in the order of the file.

    ``clean_only`` leaves out the degraded images. Raises `ContractError` on other columns, or where a logit is no number.
    """
    rows = read_table(path, SCORES)
    if len(rows) and not pc.all(pc.is_finite(rows["logit"])).as_py():
        wrong = len(rows) - pc.sum(pc.is_finite(rows["logit"])).as_py()
        raise ContractError(f"{path}: {wrong} of {len(rows)} logits are no numbers; score again (`dvc repro score`)")
    rows = rows.filter(pc.equal(rows["split"], TEST))
    return rows.filter(pc.equal(rows["degradation"], CLEAN)) if clean_only else rows


def read_val_scores(path: Path) -> pa.Table:
    """Return the rows of the validation split of ``scores/<run>.parquet``, as they are: what a threshold may be set on."""
    rows = read_table(path, SCORES)
    return rows.filter(pc.and_(pc.equal(rows["split"], VAL), pc.equal(rows["degradation"], CLEAN)))


def read_clean_scores(path: Path, seen: frozenset[str]) -> Scores:
    """Return the clean test scores of a run as arrays. ``seen``: the subsets of `metrics.seen_subsets`."""
    rows = read_test_scores(path, clean_only=True)
    is_seen_N = pc.is_in(rows["subset"], pa.array(sorted(seen), pa.string()))
    return Scores(rows["label"].to_numpy() == FAKE, is_seen_N.to_numpy(), rows["logit"].to_numpy())


def index_counts(batches: Iterable[pa.RecordBatch]) -> Counter[IndexGroup]:
    """Return how many images each (split, subset, generator, label) of the index has, in memory of one batch."""
    counts: Counter[IndexGroup] = Counter()
    for batch in batches:
        keys = ["split", "subset", "generator", "label"]
        for row in pa.table(batch).group_by(keys).aggregate([([], "count_all")]).to_pylist():
            counts[tuple(row[key] for key in keys)] += row["count_all"]
    return counts


def seen_subsets(groups: Iterable[IndexGroup]) -> frozenset[str]:
    """Return the test subsets with fakes of a generator of the training set.

    One seen generator makes a mixed subset seen: "unseen" is the claim that needs to be strict.
    """
    groups = list(groups)
    training = {generator for split, _, generator, label in groups if split == "train" and label == FAKE}
    return frozenset(
        subset for split, subset, generator, label in groups if split == TEST and label == FAKE and generator in training
    )


def check_complete(rows: pa.Table, index: pa.Table, where: object) -> None:
    """Raise `ContractError`, naming ``where``, unless ``rows`` scores every test image of the index once per degradation.

    ``index``: the columns ``image_id``, ``subset`` and ``label`` of its test images, in any order. Images are told apart by their
    ids, not by their number: rows of other images, or with another label, are found.
    """
    expected = np.sort(_places(index))
    for degradation in rows["degradation"].unique().to_pylist():
        found = np.sort(_places(rows.filter(pc.equal(rows["degradation"], degradation))))
        if np.array_equal(found, expected):
            continue
        missing, foreign = (len(one) - np.isin(one, other).sum() for one, other in ((expected, found), (found, expected)))
        raise ContractError(
            f"{where}: expected a score of each of the {len(expected)} test images of the index (image, subset and label), found "
            f"{len(found)} of the degradation {degradation!r}: {missing} are missing, {foreign} are of other images or have "
            "another label; run `dvc repro`"
        )


def with_origins(rows: pa.Table, index: pa.Table) -> pa.Table:
    """Return ``rows`` with what the index says of where their images are from: ``source_of_real``, and ``group`` if it has any.

    ``index``: its test images with the columns of `check_complete`, which ``rows`` has passed, and these two. An image without a
    group is one of its own, under its id. Of an image that a subset lists several times, the first row counts.
    """
    place_N = _places(index)
    order_N = np.argsort(place_N, kind="stable")
    found = index.take(order_N[np.searchsorted(place_N[order_N], _places(rows))])
    rows = rows.append_column("source_of_real", found["source_of_real"])
    if index["group"].null_count == len(index):
        return rows
    return rows.append_column("group", pc.coalesce(found["group"], rows["image_id"]))


def _places(rows: pa.Table) -> NDArray[np.bytes_]:
    """Return a hash of the image's id, the subset and the label of every row, 16 bytes each."""
    found = [np.empty(0, "S16")]
    for batch in rows.select(["image_id", "subset", "label"]).to_batches(max_chunksize=CHUNK):
        cells = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        found.append(
            np.array([hashlib.blake2b("/".join(map(str, row)).encode(), digest_size=16).digest() for row in cells], "S16")
        )
    return np.concatenate(found)
