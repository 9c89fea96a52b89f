"""Facts of the files of a data set, as arrays: formats, sizes, compression. And their description, per split and subset.

N rows of the index or of a choice of them, always given as numbers of rows; K numbers that state a fact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nullscope.core.contracts import FAKE, REAL, SPLITS

COLUMNS = ("image_id", "split", "subset", "label", "width", "height", "format", "bytes", "jpeg_quality")  # of `index.INDEX`
ALL = "all"
FACTS = ("format", "size", "bytes_per_pixel", "jpeg_quality", ALL)
NO_QUALITY = 0  # of a file that is no JPEG: below every quality, so that one split of a tree finds it

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class FileFacts:
    """The rows of the index. Names are given as ranks, so that no result depends on the order of the rows."""

    image_N: Ints
    split_N: Ints  # into splits
    is_fake_N: Bools
    subset_N: Ints  # into subsets
    format_N: Ints  # into formats
    width_N: Ints
    height_N: Ints
    bytes_per_pixel_N: Floats
    quality_N: Ints
    splits: list[str]
    subsets: list[str]
    formats: list[str]

    def of_split(self, split: str) -> Ints:
        """Return the rows of a split, in their order."""
        return np.flatnonzero(self.split_N == self.splits.index(split)) if split in self.splits else np.empty(0, np.int64)

    def is_of(self, some: Ints, subset: str) -> Bools:
        """Return which of ``some`` rows lie in a subset."""
        return self.subset_N[some] == self.subsets.index(subset)

    def distinct(self, some: Ints) -> Ints:
        """Return the first row of every image of ``some``, in the order of the images."""
        return some[np.unique(self.image_N[some], return_index=True)[1]]

    def numbers(self, some: Ints, fitted: Ints) -> dict[str, NDArray[np.float32]]:
        """Return the numbers of every fact of ``some`` rows, each (N, K) float32, which is what scikit-learn's trees compare.

        There is a column for every format among the ``fitted`` rows; another format has zeros in all of them.
        """
        width, height = self.width_N[some].astype(np.float64), self.height_N[some].astype(np.float64)
        numbers = {
            "format": self.format_N[some][:, None] == np.unique(self.format_N[fitted]),
            "size": np.stack([width, height, width * height, width / height], axis=1),
            "bytes_per_pixel": self.bytes_per_pixel_N[some][:, None],
            "jpeg_quality": self.quality_N[some][:, None],
        }
        numbers[ALL] = np.concatenate(list(numbers.values()), axis=1)
        return {fact: values.astype(np.float32) for fact, values in numbers.items()}


def read_file_facts(index: pa.Table) -> FileFacts:
    """Return the facts of the files of all rows of ``index`` (`COLUMNS` of `index.INDEX`, in any order).

    Raises `ValueError` on an unknown label or split, an image under both labels, and a width, height or size in bytes below 1.
    """
    _check(index)
    pixels = pc.multiply(index["width"].cast(pa.int64()), index["height"].cast(pa.int64()))
    facts = FileFacts(
        image_N=_ranks(index["image_id"]),
        split_N=_ranks(index["split"]),
        is_fake_N=pc.equal(index["label"], FAKE).to_numpy(),
        subset_N=_ranks(index["subset"]),
        format_N=_ranks(index["format"]),
        width_N=index["width"].to_numpy(),
        height_N=index["height"].to_numpy(),
        bytes_per_pixel_N=index["bytes"].to_numpy() / pixels.to_numpy(),
        quality_N=pc.fill_null(index["jpeg_quality"], NO_QUALITY).to_numpy(),
        splits=sorted(index["split"].unique().to_pylist()),
        subsets=sorted(index["subset"].unique().to_pylist()),
        formats=sorted(index["format"].unique().to_pylist()),
    )
    both = np.intersect1d(facts.image_N[facts.is_fake_N], facts.image_N[~facts.is_fake_N])
    if len(both):
        raise ValueError(
            f"index: expected one label per image, found {len(both)} images that are real and fake; `dvc repro index`"
        )
    return facts


def _check(index: pa.Table) -> None:
    for name, known in (("label", {REAL, FAKE}), ("split", set(SPLITS))):
        found = set(index[name].unique().to_pylist())
        if not found <= known:
            raise ValueError(
                f"index: expected {name} to be one of {sorted(known)}, found {sorted(found, key=str)}; `dvc repro index`"
            )
    for name in ("width", "height", "bytes"):
        smallest = pc.min(index[name]).as_py()
        if index.num_rows and smallest < 1:
            raise ValueError(f"index: expected {name} to be at least 1, found {smallest}; `dvc repro index`")


def _ranks(column: pa.ChunkedArray) -> Ints:
    """Return for every row how many distinct words sort before its own (as in Python: UTF-8 sorts like its code points)."""
    return pc.rank(column, tiebreaker="dense").to_numpy().astype(np.int64) - 1


# Descriptions


def describe_split(facts: FileFacts, some: Ints) -> dict[str, Any]:
    """Return counts of a split: rows, repetitions of an image, and distinct images that lie in several of its subsets."""
    pairs = np.unique(np.stack([facts.image_N[some], facts.subset_N[some]]), axis=1)
    subsets_per_image = np.unique(pairs[0], return_counts=True)[1]
    return _counts(facts, some) | {"across_subsets": int((subsets_per_image > 1).sum())}


def describe_subsets(facts: FileFacts, some: Ints) -> dict[str, dict[str, Any]]:
    """Return the counts and the description of the files of every subset of a split."""
    members = {name: some[facts.is_of(some, name)] for name in facts.subsets}
    return {name: _counts(facts, own) | _files(facts, own) for name, own in members.items() if len(own)}


def _counts(facts: FileFacts, some: Ints) -> dict[str, float]:
    fakes = int(facts.is_fake_N[some].sum())
    share = {"share_fake": fakes / len(some)} if len(some) else {}
    return {"n_real": len(some) - fakes, "n_fake": fakes, "duplicates": len(some) - len(facts.distinct(some)), **share}


def _files(facts: FileFacts, some: Ints) -> dict[str, Any]:
    """Return for reals and for fakes the formats, and the 5 %, 50 % and 95 % quantiles of the sizes."""
    described = {}
    for word, wanted in (("real", False), ("fake", True)):
        own = some[facts.is_fake_N[some] == wanted]
        if len(own):
            formats, counts = np.unique(facts.format_N[own], return_counts=True)
            described[word] = {
                "formats": {facts.formats[code]: int(count) for code, count in zip(formats, counts, strict=True)},
                "width": _quantiles(facts.width_N[own]),
                "height": _quantiles(facts.height_N[own]),
                "bytes_per_pixel": _quantiles(facts.bytes_per_pixel_N[own]),
            }
    return described


def _quantiles(values_N: NDArray[Any]) -> dict[str, float]:
    return dict(zip(("p5", "median", "p95"), np.quantile(values_N, (0.05, 0.5, 0.95)).tolist(), strict=True))
