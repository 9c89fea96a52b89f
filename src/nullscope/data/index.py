"""The index: one row per readable image, one line per refused file.

Every file is decoded once, wholly, in worker processes; the result does not depend on their number. The rows are held as Arrow
columns (about 250 bytes each) and sorted at the end by split, subset, label, image id and source.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from nullscope import ranks
from nullscope.contracts import FAKE, INDEX, REAL, SPLITS
from nullscope.data.archives import read_source, source_size
from nullscope.data.dataset import LABEL_WORDS, DatasetError, DatasetParams
from nullscope.data.folders import Found, Refused, refusal
from nullscope.data.images import Facts, ImageError, facts, image_id
from nullscope.data.survey import IGNORED, Survey, check_classes, survey, wanted
from nullscope.data.tables import write_table
from nullscope.files import replacing

CHUNK = 32  # files per task of a worker
BATCH = 8192  # rows per Arrow batch
SORT_KEYS = [(name, "ascending") for name in ("split", "subset", "label", "image_id", "source")]
LARGEST_FILE = 64 * 2**20  # bytes; or 8 per pixel of the limit, which is RGBA of 16 bits without compression

T = TypeVar("T")
Chunk = list[Found | Refused]
Progress = Callable[[int, int], None]  # files read, files in all
Verdict = tuple[str, Facts] | str  # image id and facts, or why the file is refused


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
    verdicts = _counted(_verdicts(params, workers), folders.total, progress)
    rows, refusals = _collect(params, verdicts, min_side_px)
    rows, contradictions = _without_contradictions(rows)
    refusals += contradictions
    _write_rejects(rejects_path, refusals)
    labels = {split: set(rows.filter(pc.field("split") == split)["label"].unique().to_pylist()) for split in SPLITS}
    check_classes(params, labels, f" once {len(refusals)} files are refused (see {rejects_path})")
    rows = rows.sort_by(SORT_KEYS).replace_schema_metadata({"dataset": params.name})
    write_table(index_path, rows, INDEX)
    return _counts(params, rows, refusals, folders)


def _verdicts(params: DatasetParams, workers: int) -> Iterator[tuple[Found | Refused, Verdict]]:
    """Yield everything of the data set with what its bytes say, in the order of the walk."""
    items = wanted(params)
    chunks = iter(lambda: list(islice(items, CHUNK)), [])
    if workers == 1:
        for chunk in chunks:
            yield from zip(chunk, _examine(Path(params.root), params.max_pixels, chunk), strict=True)
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
) -> Iterator[tuple[Chunk, Future[list[Verdict]]]]:
    """Yield chunks with their futures in order, at most ``window`` of them under way."""
    waiting: deque[tuple[Chunk, Future[list[Verdict]]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, pool.submit(_examine, Path(params.root), params.max_pixels, chunk)))
        if len(waiting) == window:
            yield waiting.popleft()
    yield from waiting


def _examine(root: Path, max_pixels: int, chunk: Chunk) -> list[Verdict]:
    """Read and decode some files; runs in a worker."""
    return [item.reason if isinstance(item, Refused) else _verdict(root / item.source, max_pixels) for item in chunk]


def _verdict(path: Path, max_pixels: int) -> Verdict:
    try:
        size, limit = source_size(path), max(LARGEST_FILE, 8 * max_pixels)
        if size > limit:
            return f"{size} bytes: no image of dataset.max_pixels = {max_pixels} takes more than {limit}"
        data = read_source(path)
        return image_id(data), facts(data, max_pixels=max_pixels)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return refusal(error)


def _counted(verdicts: Iterable[T], total: int, progress: Progress) -> Iterator[T]:
    for done, verdict in enumerate(verdicts, start=1):
        yield verdict
        progress(done, total)


def _collect(
    params: DatasetParams, verdicts: Iterable[tuple[Found | Refused, Verdict]], min_side_px: int
) -> tuple[pa.Table, list[Refused]]:
    """Return the rows of the accepted files, unsorted, and the refusals."""
    rows: list[dict[str, Any]] = []
    batches: list[pa.RecordBatch] = []
    refusals: list[Refused] = []
    for item, verdict in verdicts:
        reason = verdict if isinstance(verdict, str) else _too_small(verdict[1], min_side_px)
        if reason:
            refusals.append(Refused(item.source, reason))
        else:
            rows.append(_row(params, item, *verdict))
        if len(rows) == BATCH:
            batches.append(pa.RecordBatch.from_pylist(rows, INDEX))
            rows = []
    batches.append(pa.RecordBatch.from_pylist(rows, INDEX))
    return pa.Table.from_batches(batches, INDEX), refusals


def _too_small(image: Facts, min_side_px: int) -> str | None:
    if min(image.width, image.height) >= min_side_px:
        return None
    return f"{image.width}x{image.height} px: a side is shorter than a patch of {min_side_px} px"


def _row(params: DatasetParams, found: Found, identity: str, image: Facts) -> dict[str, Any]:
    split = params.split_of(found.folder, identity)
    subset = params.subset(split, found.folder)
    generator = params.generator(subset, found.label)
    if found.label == FAKE and found.generator:
        generator = found.generator
    return {"image_id": identity, "split": split, "subset": subset, "generator": generator, "label": found.label,
            "source": found.source, **vars(image)}  # fmt: skip


def _without_contradictions(rows: pa.Table) -> tuple[pa.Table, list[Refused]]:
    """Take out the images whose very bytes are listed as real and as fake: one label is wrong, and none can know which."""
    spread = rows.group_by("image_id").aggregate([("label", "min"), ("label", "max")])
    both = spread.filter(pc.not_equal(spread["label_min"], spread["label_max"]))["image_id"]
    contradicted = pc.is_in(rows["image_id"], value_set=both)
    reason = {label: f"contradictory label: the same bytes are also listed as {LABEL_WORDS[1 - label]}" for label in (REAL, FAKE)}
    refused = rows.filter(contradicted).select(["source", "label"]).to_pylist()
    return rows.filter(pc.invert(contradicted)), [Refused(row["source"], reason[row["label"]]) for row in refused]


def _write_rejects(path: Path, refusals: list[Refused]) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "reason"))
        writer.writerows(sorted((refusal.source, refusal.reason) for refusal in refusals))


def _counts(params: DatasetParams, rows: pa.Table, refusals: list[Refused], folders: Survey) -> dict[str, Any]:
    """Return the numbers of ``metrics/index.json``; ignored files are counted per folder, images per split and subset."""
    found = {split: _per_subset(rows.filter(pc.field("split") == split)) for split in SPLITS}
    spread = rows.group_by("image_id").aggregate([("split", "count_distinct")])
    return {
        "images": rows.num_rows,
        "refused": len(refusals),
        "duplicates": rows.num_rows - spread.num_rows,  # rows beyond the first of the same image
        "leakage": spread.filter(pc.field("split_count_distinct") > 1).num_rows,  # images in both train and test
        "ignored": {why: folders.ignored_because(why) for why in IGNORED},
        "unexpected": params.unexpected(found),  # subsets that are missing, or have other counts than published
        **found,
    }


def _per_subset(rows: pa.Table) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for group in rows.group_by(["subset", "label"]).aggregate([([], "count_all")]).to_pylist():
        counts.setdefault(group["subset"], {"real": 0, "fake": 0})[LABEL_WORDS[group["label"]]] = group["count_all"]
    return counts
