"""The index: one row per readable image, one line per refused file.

Every file is decoded once and completely, in worker processes; the result does not depend on their number. The rows are sorted on
the disk (`sorting`), so memory does not grow with them: first by image, which brings the rows of equal files together, then by
split, subset, label, image id and source.
"""

from __future__ import annotations

import csv
import multiprocessing
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import combinations, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from nullscope.archives.members import refusal
from nullscope.archives.reading import read_source
from nullscope.core import ranks
from nullscope.core.contracts import FAKE, REAL, SPLITS, image_id
from nullscope.core.files import replacing
from nullscope.images.decoder import Facts, facts
from nullscope.sources.dataset import LABEL_WORDS, DatasetError, DatasetParams
from nullscope.sources.folders import Found, Refused
from nullscope.sources.survey import IGNORED, Survey, check_classes, survey, wanted
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import write_batches
from nullscope.tables.sorting import Sorter, whole_groups

CHUNK = 32  # files per task of a worker
BATCH = 8192  # rows per Arrow batch
SORT_KEYS = ("split", "subset", "label", "image_id", "source")
REFUSED = pa.schema([pa.field("source", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])

T = TypeVar("T")
Chunk = list[Found | Refused]
Progress = Callable[[int, int], None]  # files read, files in all
Finding = tuple[str, Facts] | str  # image id and facts, or why the file is refused


def build_index(
    params: DatasetParams,
    *,
    min_side_px: int,
    index_path: Path,
    rejects_path: Path,
    workers: int,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Index the data set, write both tables and return the counts of ``metrics/index.json``.

    Images with a side shorter than ``min_side_px`` are refused. Raises `DatasetError` if the folders do not fit ``params`` or
    a split is left with one class; the refusals are written before that.
    """
    folders = survey(params)
    findings = _with_progress(_findings(params, workers), folders.total, progress)
    counts = _Counts()
    with _scratch(index_path) as scratch:
        by_image, refusals = Sorter(INDEX, ["image_id"], scratch / "images"), Sorter(REFUSED, REFUSED.names, scratch / "refused")
        _collect(params, findings, min_side_px, by_image, refusals)
        in_order = Sorter(INDEX, SORT_KEYS, scratch / "rows")
        for images in whole_groups(by_image.sorted(), "image_id"):
            rows, contradictions = _without_contradictions(images)
            refusals.add_rows(contradictions)
            counts.add(rows)
            for batch in rows.to_batches():
                in_order.add(batch)
        _write_rejects(rejects_path, refusals.sorted())
        check_classes(params, counts.labels, f" once {refusals.rows} files are refused (see {rejects_path})")
        write_batches(index_path, in_order.sorted(), INDEX.with_metadata({"dataset": params.name}))
    return {"refused": refusals.rows, **counts.as_dict(params, folders)}


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Yield the name of a folder beside ``path``, without what a killed process left there; remove it at the end."""
    folder = path.with_name(f".{path.name}.sorting")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _findings(params: DatasetParams, workers: int) -> Iterator[tuple[Found | Refused, Finding]]:
    """Yield the files of the data set with what was found in their bytes, in the order of the walk."""
    items = wanted(params)
    chunks = iter(lambda: list(islice(items, CHUNK)), [])
    if workers == 1:
        for chunk in chunks:
            yield from zip(chunk, _examine(params.folder, params.max_pixels, chunk), strict=True)
        return
    last = "the first file"
    try:
        # A forked child inherits the locks of Arrow's threads but not the threads; a spawned one starts clean.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), ranks.end_with_parent) as pool:
            for chunk, future in _submit(pool, params, chunks, window=4 * workers):
                yield from zip(chunk, future.result(), strict=True)
                last = chunk[-1].source
    except BrokenProcessPool:
        raise DatasetError(
            f"a worker process died at {last} or up to {4 * workers * CHUNK} files behind it, most likely out of memory; "
            "try fewer processes (NULLSCOPE_WORKERS=1) or a lower dataset.max_pixels"
        ) from None


def _submit(
    pool: ProcessPoolExecutor, params: DatasetParams, chunks: Iterable[Chunk], *, window: int
) -> Iterator[tuple[Chunk, Future[list[Finding]]]]:
    """Yield chunks with their futures in order, at most ``window`` of them under way."""
    waiting: deque[tuple[Chunk, Future[list[Finding]]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, pool.submit(_examine, params.folder, params.max_pixels, chunk)))
        if len(waiting) == window:
            yield waiting.popleft()
    yield from waiting


def _examine(root: Path, max_pixels: int, chunk: Chunk) -> list[Finding]:
    """Read and decode some files; runs in a worker."""
    return [item.reason if isinstance(item, Refused) else _finding(root / item.source, max_pixels) for item in chunk]


def _finding(path: Path, max_pixels: int) -> Finding:
    try:
        data = read_source(path, max_pixels=max_pixels)
        return image_id(data), facts(data, max_pixels=max_pixels)
    except (OSError, MemoryError, ValueError) as error:  # an `ImageError`, or a path with a NUL
        return refusal(error)


def _with_progress(findings: Iterable[T], total: int, progress: Progress) -> Iterator[T]:
    for done, finding in enumerate(findings, start=1):
        yield finding
        progress(done, total)


def _collect(
    params: DatasetParams,
    findings: Iterable[tuple[Found | Refused, Finding]],
    min_side_px: int,
    accepted: Sorter,
    refused: Sorter,
) -> None:
    """Divide the files into the rows of those that are accepted, and the refusals."""
    rows: list[dict[str, Any]] = []
    refusals: list[dict[str, Any]] = []
    for item, finding in findings:
        reason = finding if isinstance(finding, str) else _too_small(finding[1], min_side_px)
        if reason:
            refusals.append({"source": item.source, "reason": reason})
        else:
            rows.append(_row(params, item, *finding))
        if len(rows) + len(refusals) == BATCH:
            accepted.add_rows(rows)
            refused.add_rows(refusals)
            rows, refusals = [], []
    accepted.add_rows(rows)
    refused.add_rows(refusals)


def _too_small(image: Facts, min_side_px: int) -> str | None:
    if min(image.width, image.height) >= min_side_px:
        return None
    return f"{image.width}x{image.height} px: a side is shorter than a patch of {min_side_px} px"


def _row(params: DatasetParams, found: Found, identity: str, image: Facts) -> dict[str, Any]:
    split = params.split_of(found.folder, identity)
    subset = params.subset(split, found.folder)
    generator = params.generator(subset, found.label)
    source_of_real, released = None, None
    if found.label == REAL:
        source_of_real = found.source_of_real or params.source_of_real(subset)
    else:
        generator = found.generator or generator
        released = found.released or params.released.get(generator)
    return {"image_id": identity, "split": split, "subset": subset, "generator": generator, "label": found.label,
            "source": found.source, **vars(image), "source_of_real": source_of_real, "group": found.group,
            "released": released}  # fmt: skip


def _without_contradictions(rows: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Take out the images whose bytes are listed both as real and as fake: one label is wrong, and nothing tells which."""
    spread = rows.group_by("image_id").aggregate([("label", "min"), ("label", "max")])
    both = spread.filter(pc.not_equal(spread["label_min"], spread["label_max"]))["image_id"]
    contradicted = pc.is_in(rows["image_id"], value_set=both)
    reason = {label: f"contradictory label: the same bytes are also listed as {LABEL_WORDS[1 - label]}" for label in (REAL, FAKE)}
    refused = rows.filter(contradicted).select(["source", "label"]).to_pylist()
    return rows.filter(pc.invert(contradicted)), [{"source": row["source"], "reason": reason[row["label"]]} for row in refused]


def _write_rejects(path: Path, refusals: Iterable[pa.RecordBatch]) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(REFUSED.names)
        for batch in refusals:
            writer.writerows(zip(*batch.to_pydict().values(), strict=True))


class _Counts:
    """The numbers of ``metrics/index.json``."""

    def __init__(self) -> None:
        self.groups: Counter[tuple[str, str, int]] = Counter()  # split, subset, label
        self.distinct = 0
        self.in_both = dict.fromkeys(combinations(SPLITS, 2), 0)  # pair of splits -> images

    def add(self, rows: pa.Table) -> None:
        """Count ``rows``, which hold all rows of each of their images."""
        self.distinct += pc.count_distinct(rows["image_id"]).as_py()
        ids = {split: pc.unique(rows["image_id"].filter(pc.equal(rows["split"], split))) for split in SPLITS}
        for one, other in self.in_both:
            self.in_both[one, other] += pc.sum(pc.is_in(ids[one], value_set=ids[other]), min_count=0).as_py()
        for group in rows.group_by(["split", "subset", "label"]).aggregate([([], "count_all")]).to_pylist():
            self.groups[group["split"], group["subset"], group["label"]] += group["count_all"]

    @property
    def labels(self) -> dict[str, set[int]]:
        """The labels of every split."""
        return {split: {label for of, _, label in self.groups if of == split} for split in SPLITS}

    def as_dict(self, params: DatasetParams, folders: Survey) -> dict[str, Any]:
        """Return the counts; ignored files are counted per folder, images per split and subset."""
        found: dict[str, dict[str, dict[str, int]]] = {split: {} for split in SPLITS}
        for (split, subset, label), images in self.groups.items():
            found[split].setdefault(subset, {"real": 0, "fake": 0})[LABEL_WORDS[label]] = images
        return {
            "images": self.groups.total(),
            "duplicates": self.groups.total() - self.distinct,  # rows beyond the first of the same image
            "leakage": self.in_both["train", "test"],  # images in both train and test
            # Images in both of two splits. In train and val: a threshold is chosen on images that the detector knows, and is too
            # optimistic. In val and test: it is chosen on the very images that it is tested on.
            "leakage_between": {f"{one}_{other}": images for (one, other), images in self.in_both.items()},
            "ignored": {why: folders.ignored_because(why) for why in IGNORED},
            "unexpected": params.unexpected(found),  # subsets that are missing, or have other counts than published
            **found,
        }
