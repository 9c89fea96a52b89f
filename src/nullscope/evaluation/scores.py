"""Reading scores. The only function that opens a file of scores for a number: it keeps the rows of the test split.

A file of scores also holds the validation images, on which thresholds and epochs are chosen. None of them may reach a number that
is reported as a result of the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nullscope.core.contracts import CLEAN, FAKE, SCORES, ContractError
from nullscope.tables.parquet import read_table

TEST = "test"


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


def read_clean_scores(path: Path, seen: frozenset[str]) -> Scores:
    """Return the clean test scores of a run as arrays. ``seen``: the subsets of `metrics.seen_subsets`."""
    rows = read_test_scores(path, clean_only=True)
    is_seen_N = pc.is_in(rows["subset"], pa.array(sorted(seen), pa.string()))
    return Scores(rows["label"].to_numpy() == FAKE, is_seen_N.to_numpy(), rows["logit"].to_numpy())


def check_complete(rows: pa.Table, images: int, where: object) -> None:
    """Raise `ContractError`, naming ``where``, unless ``rows`` has a score per degradation for each of ``images`` test images."""
    for group in pc.value_counts(rows["degradation"]).to_pylist():
        if group["counts"] != images:
            found = f"{group['counts']} of the degradation {group['values']!r}"
            raise ContractError(
                f"{where}: expected scores of the {images} test images of the index, found {found}; run `dvc repro`"
            )
