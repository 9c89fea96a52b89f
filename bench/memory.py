"""Peak memory of every stage that handles a table as long as the data set, at several lengths; each in a process of its own.

usage: python bench/memory.py [--rows 200000 400000] [--only plan text] [--name memory]

`list_archive` and `index_archive` take minutes and run where they are asked for.

The tables are fabricated: ids as long as real ones, ten subsets, sources and captions of about 45 characters, features of 768
numbers (ViT-L/14), and for `archive` a zip of PNGs of 32 x 32 pixels. Both lengths are longer than a run of the sorter and than a
row group, so that their buffers are full in both. Peak is the kernel's high-water mark; ``own`` leaves out pages of mapped files,
which the kernel takes back when it needs the room, and is what is left at the end of the job.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import publish

from nullscope.core.contracts import CAPTIONS, SCORES, text_schema
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_batches, read_table, vector_table, write_batches

WIDTH = 768
SUBSETS = [f"generator_{number}" for number in range(10)]
CHUNK = 8192  # rows


def ids_of(rows: int) -> list[str]:
    """Ids in their order."""
    return sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(rows))


def chunks(rows: int) -> Iterator[tuple[int, int]]:
    """The beginnings and ends of pieces."""
    return ((start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK))


def batch_of(columns: Sequence[Iterable[object]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of ``schema``."""
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def fabricate_index(folder: Path, rows: int) -> None:
    """Half of the rows train, half test; per subset and label in the order of the ids."""
    listed = ids_of(rows)

    def table(split: str, subset: str, label: int, ids: list[str]) -> pa.RecordBatch:
        n = len(ids)
        sources = [f"{split}/{subset}/{'01'[label]}_x/{one[:20]}.jpg" for one in ids]
        generator = subset if label else "real"
        columns = [ids, [split] * n, [subset] * n, [generator] * n, [label] * n, sources]
        facts = [[512] * n, [512] * n, ["JPEG"] * n, range(50_000, 50_000 + n), [90] * n]
        origin = [[None if label else "camera"] * n, [None] * n, [None] * n]
        return batch_of([*columns, *facts, *origin], INDEX)

    keys = [(split, subset, label) for split in ("test", "train") for subset in SUBSETS for label in (0, 1)]
    batches = (table(*key, listed[number :: len(keys)]) for number, key in enumerate(keys))
    write_batches(folder / "index.parquet", batches, INDEX)
    write_batches(folder / "captions.parquet", captions(listed), CAPTIONS)


def captions(listed: list[str]) -> Iterator[pa.RecordBatch]:
    """One per id, about as long as BLIP's."""
    for start, end in chunks(len(listed)):
        words = [f"a photograph of number {number} on a wooden table" for number in range(start, end)]
        yield batch_of([listed[start:end], words], CAPTIONS)


def fabricate_text(folder: Path, rows: int) -> None:
    """Random features of all rows."""
    listed, schema, rng = ids_of(rows), text_schema(WIDTH), np.random.default_rng(0)
    tables = (vector_table(listed[a:b], rng.standard_normal((b - a, WIDTH), np.float32), schema) for a, b in chunks(rows))
    write_batches(folder / "text.parquet", (batch for table in tables for batch in table.to_batches()), schema)


def fabricate_scores(folder: Path, rows: int) -> None:
    """Scores of all rows, as if all were test images."""
    listed, rng = ids_of(rows), np.random.default_rng(0)

    def batch(start: int, end: int) -> pa.RecordBatch:
        n = end - start
        subsets, labels = [SUBSETS[row % 10] for row in range(n)], rng.integers(0, 2, n, np.int8)
        columns = [listed[start:end], ["test"] * n, subsets, labels, ["none"] * n, rng.standard_normal(n, np.float32)]
        return batch_of(columns, SCORES)

    write_batches(folder / "scores.parquet", (batch(*piece) for piece in chunks(rows)), SCORES)


def fabricate_archive(folder: Path, rows: int) -> None:
    """A zip of one training and one test subset, real and fake."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with zipfile.ZipFile(folder / "images.zip", "w") as file:
        for number in range(rows):
            pixels[0, 0] = [number & 255, number >> 8 & 255, number >> 16]
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
            where = f"{('train', 'test')[number % 2]}/x/{('0_real', '1_fake')[number // 2 % 2]}"
            file.writestr(f"{where}/{number:09d}.png", buffer.getvalue())


def parameters(root: Path) -> object:
    """Of the folder or the archive."""
    from nullscope.sources.dataset import DatasetParams

    return DatasetParams(name="memory", root=str(root), train=["train/*"], test=["test/*"], train_fraction=0.5, max_pixels=10**8)


def sort_index(folder: Path, rows: int) -> object:
    """The stage `index` without its files: what the workers would say, sorted, counted and written."""
    from nullscope.images.decoder import Facts
    from nullscope.sources import index
    from nullscope.sources.folders import Found
    from nullscope.sources.survey import Survey

    def verdicts(*_: object) -> Iterator[tuple[Found, object]]:
        for number in range(rows):
            where = f"{('train', 'test')[number % 2]}/{SUBSETS[number // 4 % 10]}"
            found = Found(f"{where}/{number // 2 % 2}_x/{number:020d}.jpg", where, number // 2 % 2)
            yield found, (hashlib.sha256(str(number).encode()).hexdigest(), Facts(512, 512, "JPEG", 50_000 + number, 90))

    index.survey, index._findings = lambda params: Survey(), verdicts
    out = {"index_path": folder / "out.parquet", "rejects_path": folder / "out.csv"}
    return index.build_index(parameters(folder), min_side_px=32, workers=1, **out)


def list_archive(folder: Path, rows: int) -> object:
    """A look at all members of a zip, as every worker of `index` opens it."""
    from nullscope.sources.survey import survey

    return survey(parameters(folder))


def index_archive(folder: Path, rows: int) -> object:
    """The whole of the stage `index` on a zip, one worker; minutes, so it runs where it is asked for."""
    from nullscope.sources.index import build_index

    out = {"index_path": folder / "zip.parquet", "rejects_path": folder / "zip.csv"}
    return build_index(parameters(folder), min_side_px=32, workers=1, **out)


def plan(folder: Path, rows: int) -> object:
    """The list of work of the stage `shard`."""
    from nullscope.shards.plan import plan

    return plan(folder / "index.parquet", Path("images"), 1000)


def listing(folder: Path, rows: int) -> object:
    """The list of work of the stage `caption`."""
    from nullscope.tables.listing import distinct_images

    items = distinct_images(folder / "index.parquet", Path("images"))
    return [items[start : start + 1024] for start in range(0, len(items), 1024)]


def join_captions(folder: Path, rows: int) -> object:
    """The list of work of the stage `embed`, one split, and a look at every piece of it."""
    from nullscope.embedding import captions_of

    work = captions_of("train", folder / "captions.parquet", folder / "index.parquet", CHUNK)
    assert sum(batch.num_rows for batch in work) == rows // 2
    return work


def text(folder: Path, rows: int) -> object:
    """What `train` holds of the captions: the table, joined with a few hundred batches."""
    from nullscope.tables.text import TextTable

    table, rng = TextTable.read(folder / "text.parquet"), np.random.default_rng(0)
    listed = ids_of(rows)
    for _ in range(300):
        table.rows([listed[row] for row in rng.integers(0, rows, 32)])
    del listed
    return table


def join_scores(folder: Path, rows: int) -> object:
    """The end of the stage `score`; half of the rows are test images."""
    from nullscope.scoring import LOGITS
    from nullscope.tables.index import join_index

    test = [one for batch in read_batches(folder / "index.parquet", INDEX) for one, split in
            zip(batch["image_id"].to_pylist(), batch["split"].to_pylist(), strict=True) if split == "test"]  # fmt: skip
    scored = pa.table([pa.array(test), np.zeros(len(test), np.float32)], schema=LOGITS)
    del test
    return join_index(scored, folder / "index.parquet", "test")


def evaluate(folder: Path, rows: int) -> object:
    """The stage `evaluate`, one degradation."""
    from nullscope.evaluation.protocol import evaluate_with_resamples

    scores = read_table(folder / "scores.parquet", SCORES, columns=["split", "subset", "label", "degradation", "logit"])
    return evaluate_with_resamples(scores, frozenset(SUBSETS[:2]))


INPUTS: dict[str, Callable[[Path, int], None]] = {
    "index": fabricate_index,
    "text": fabricate_text,
    "scores": fabricate_scores,
    "archive": fabricate_archive,
}
JOBS: dict[str, tuple[Callable[[Path, int], object], str | None]] = {  # name -> (job, its input)
    "sort_index": (sort_index, None),
    "list_archive": (list_archive, "archive"),
    "index_archive": (index_archive, "archive"),
    "plan": (plan, "index"),
    "listing": (listing, "index"),
    "join_captions": (join_captions, "index"),
    "text": (text, "text"),
    "join_scores": (join_scores, "index"),
    "evaluate": (evaluate, "scores"),
}


def status(key: str) -> float:
    """A number of /proc/self/status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1000


def measured(name: str, folder: Path, rows: int) -> dict[str, float]:
    """Run one job here; return seconds and MB."""
    act, start = JOBS[name][0], time.perf_counter()
    kept = act(folder, rows)
    seconds, own = time.perf_counter() - start, status("RssAnon")
    del kept
    return {"seconds": seconds, "peak_mb": status("VmHWM"), "own_mb": own}


def in_a_process(*arguments: object) -> str:
    """Run this file with ``arguments``; return what it prints."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def run(names: list[str], lengths: list[int]) -> list[dict[str, object]]:
    """Measure jobs at several lengths; return a row per job."""
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in names}
    for rows in lengths:
        with tempfile.TemporaryDirectory() as folder:
            for kind in {JOBS[name][1] for name in names} - {None}:
                in_a_process("--fabricate", kind, folder, rows)
            for name in names:
                found[name][rows] = json.loads(in_a_process("--measure", name, folder, rows))
    return [row(name, by_rows) for name, by_rows in found.items()]


def row(name: str, by_rows: dict[int, dict[str, float]]) -> dict[str, object]:
    """One line of the table: the peaks, and what a row adds between the shortest and the longest table."""
    few, many = min(by_rows), max(by_rows)
    peaks = {f"peak MB at {rows:,}": values["peak_mb"] for rows, values in by_rows.items()}
    grown = {key: (by_rows[many][key] - by_rows[few][key]) * 1e6 / max(many - few, 1) for key in ("peak_mb", "own_mb")}
    return {"job": name, **peaks, "B/row, peak": grown["peak_mb"], "B/row, own": grown["own_mb"],
            "rows/s": many / by_rows[many]["seconds"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 400_000])
    parser.add_argument("--only", nargs="+", choices=JOBS, default=[name for name in JOBS if JOBS[name][1] != "archive"])
    parser.add_argument("--name", default="memory", help="of the file in bench/results")
    parser.add_argument("--fabricate", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fabricate:
        kind, folder, rows = options.fabricate
        INPUTS[kind](Path(folder), int(rows))
    elif options.measure:
        name, folder, rows = options.measure
        print(json.dumps(measured(name, Path(folder), int(rows))))
    else:
        publish(options.name, run(options.only, options.rows), rows_measured=options.rows)


if __name__ == "__main__":
    main()
