"""The index: one row per readable image, one line per refused file, the same bytes however it is made."""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from images.bad_images import bad_files, good_files, photo, save, write_files

from nullscope.archives import reading
from nullscope.core.contracts import image_id
from nullscope.sources import index
from nullscope.sources.dataset import DatasetError, DatasetParams
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_schema, read_table

STAGE = Path(__file__).parents[2] / "stages" / "index.py"
REASONS = {
    "truncated.jpg": "truncated JPEG: its end is missing",
    "cut_end.png": "truncated PNG: its end is missing",
    "bad_checksum.png": "damaged PNG: wrong checksum in the chunk tEXt",
    "empty.png": "empty file (0 bytes)",
    "text.png": "not an image: looks like text",
    "page.jpg": "not an image: looks like web page",
    "pointer.png": "not an image: looks like Git LFS pointer",
    "strip.png": "500x31 px: a side is shorter than a patch of 32 px",
    "huge.png": "12000x12000 px: more pixels than the limit",
    "float.tiff": "not supported: a TIFF of floating-point, signed or complex samples: no agreed black and white",
    "icon.ico": "not supported: icon; save it as PNG or JPEG",
}


def noise(seed: int) -> bytes:
    return save(photo(seed), "PNG")


def build(root: Path, out: Path, workers: int = 1, progress: index.Progress = lambda done, total: None, **changes) -> dict:
    values = {"name": "small", "train": ["a"], "test": ["b"], "train_fraction": 0.5, "max_pixels": 10**6, **changes}
    return index.build_index(
        DatasetParams(root=str(root), **values),
        min_side_px=32,
        index_path=out / "index.parquet",
        rejects_path=out / "rejects.csv",
        workers=workers,
        progress=progress,
    )


def rows_of(out: Path) -> list[dict]:
    return read_table(out / "index.parquet", INDEX).to_pylist()


def rejects_of(out: Path) -> dict[str, str]:
    with open(out / "rejects.csv", encoding="utf-8", newline="") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def two_by_two() -> dict[str, bytes]:
    names = [f"{subset}/{label}/x.png" for subset in "ab" for label in ("0_real", "1_fake")]
    return {name: noise(100 + seed) for seed, name in enumerate(names)}


def test_the_zoo_is_read_or_refused_with_its_reason(tmp_path, two_by_two):
    assert REASONS.keys() == bad_files().keys()
    zoo = {f"a/0_real/{name}": data for name, data in {**good_files(), **bad_files()}.items()}
    root = write_files(tmp_path / "images", {**two_by_two, **zoo})
    os.symlink(".", root / "a/0_real/loop")
    with open(os.path.join(os.fsencode(root), b"a/0_real/caf\xe9.png"), "wb") as file:
        file.write(noise(1))
    counts = build(root, tmp_path)
    rejects = rejects_of(tmp_path)
    for name, reason in REASONS.items():
        assert rejects.pop(f"a/0_real/{name}").startswith(reason), name
    assert sorted(rejects) == ["a/0_real/caf\\xe9.png", "a/0_real/loop"]
    found = {row["source"]: row for row in rows_of(tmp_path)}
    assert found.keys() == two_by_two.keys() | {f"a/0_real/{name}" for name in good_files()}
    assert counts["refused"] == len(bad_files()) + 2
    assert counts["images"] == len(found)
    assert counts["duplicates"] == 1  # twin_a and twin_b
    assert (counts["leakage"], counts["test"]) == (0, {"b": {"real": 1, "fake": 1}})
    assert (found["a/0_real/rotated.jpg"]["width"], found["a/0_real/rotated.jpg"]["height"]) == (40, 64)
    assert (found["a/0_real/UPPER.JPG"]["format"], found["a/0_real/UPPER.JPG"]["jpeg_quality"]) == ("JPEG", 75)
    assert (found["a/0_real/wrong_name.png"]["format"], found["a/0_real/wrong_name.png"]["jpeg_quality"]) == ("WEBP", None)


def test_rows_say_what_the_contract_says(tmp_path, two_by_two):
    root = write_files(tmp_path / "images", two_by_two)
    build(root, tmp_path, generators={"b": "ProGAN"})
    rows = rows_of(tmp_path)
    assert rows == sorted(rows, key=lambda row: [row[key] for key in ("split", "subset", "label", "image_id", "source")])
    data = two_by_two["b/1_fake/x.png"]
    assert next(row for row in rows if row["source"] == "b/1_fake/x.png") == {
        **{
            "image_id": image_id(data),
            "split": "test",
            "subset": "b",
            "generator": "ProGAN",
            "label": 1,
            "source": "b/1_fake/x.png",
        },
        **{"width": 40, "height": 48, "format": "PNG", "bytes": len(data), "jpeg_quality": None},
        **{"source_of_real": None, "group": None, "released": None},
    }
    assert {row["source_of_real"] for row in rows if not row["label"]} == {"a", "b"}, "where nothing says so, the subset"
    assert [row["generator"] for row in rows] == ["real", "ProGAN", "real", "a"]
    assert read_schema(tmp_path / "index.parquet").metadata == {b"dataset": b"small"}
    assert (tmp_path / "rejects.csv").read_bytes() == b"source,reason\n"


def test_where_images_are_from_is_said_by_parameters_and_by_a_manifest(tmp_path, two_by_two):
    """What a row of the manifest says counts before the parameters, and these before the subset's name."""
    root = write_files(tmp_path / "images", two_by_two)
    days = {"sources_of_real": {"a": "phone", "*": "web"}, "released": {"a": "2021-03-01", "b": date(2023, 5, 4)}}
    build(root, tmp_path, **days)
    found = {(row["subset"], row["label"], row["source_of_real"], row["group"], row["released"]) for row in rows_of(tmp_path)}
    assert found == {
        *(("a", 0, "phone", None, None), ("a", 1, None, None, date(2021, 3, 1))),
        *(("b", 0, "web", None, None), ("b", 1, None, None, date(2023, 5, 4))),
    }
    lines = [f"{source},{'01'['1_fake' in source]},{source[0]},,p7,2020-01-02" for source in sorted(two_by_two)]
    lines[0] = lines[0].replace(",,p7,", ",scan,,")
    (root / "m.csv").write_text("source,label,subset,source_of_real,group,released\n" + "\n".join(lines) + "\n")
    build(root, tmp_path, manifest="m.csv", train=["all/a"], test=["all/b"], **days)
    rows = {row["source"]: (row["source_of_real"], row["group"], row["released"]) for row in rows_of(tmp_path)}
    assert rows == {
        **{source: (None, "p7", date(2020, 1, 2)) for source in two_by_two if "1_fake" in source},
        **{source: ({"a": "phone", "b": "web"}[source[0]], "p7", None) for source in two_by_two if "0_real" in source},
        sorted(two_by_two)[0]: ("scan", None, None),
    }


def test_the_number_of_workers_and_the_order_of_writing_change_no_byte(tmp_path, two_by_two, monkeypatch):
    monkeypatch.setattr(index, "CHUNK", 3)
    monkeypatch.setattr(index, "BATCH", 4)
    files = {**two_by_two, **{f"a/1_fake/{name}": data for name, data in {**good_files(), **bad_files()}.items()}}
    first = write_files(tmp_path / "first", files)
    second = write_files(tmp_path / "second", dict(reversed(files.items())))
    one, three = build(first, tmp_path / "one"), build(second, tmp_path / "three", workers=3)
    assert one == three
    for name in ("index.parquet", "rejects.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_duplicates_and_leakage_are_counted(tmp_path, two_by_two):
    copies = {f"a/0_real/copy{k}.png": two_by_two["a/0_real/x.png"] for k in range(2)}
    leaked = {"b/0_real/leaked.png": two_by_two["a/0_real/x.png"]}
    counts = build(write_files(tmp_path / "images", {**two_by_two, **copies, **leaked}), tmp_path)
    assert (counts["images"], counts["duplicates"], counts["leakage"], counts["refused"]) == (7, 3, 1, 0)


def test_leakage_is_counted_between_any_two_splits(tmp_path):
    """Every image is put into some of the three splits, in some of them twice; counted here one by one."""
    rng, files = random.Random(0), {}
    for number in range(60):
        label, splits = ("0_real", "1_fake")[number % 2], rng.sample("tvs", rng.randint(1, 3))
        for copy, split in enumerate([*splits, *splits[:1]]):
            files[f"{split}/{label}/{number}-{copy}.png"] = noise(number)
    counts = build(write_files(tmp_path / "images", files), tmp_path, train=["t"], val=["v"], test=["s"])
    held: dict[bytes, set[str]] = {}
    for name, data in files.items():
        held.setdefault(data, set()).add(name[0])
    expected = {pair: sum(set(both) <= splits for splits in held.values())
                for pair, both in (("train_val", "tv"), ("train_test", "ts"), ("val_test", "vs"))}  # fmt: skip
    assert counts["leakage_between"] == expected and min(expected.values()) > 5
    assert counts["leakage"] == expected["train_test"]
    assert (counts["images"], counts["duplicates"]) == (len(files), len(files) - 60)


def test_a_share_of_the_training_images_validates_instead(tmp_path):
    files = {f"{subset}/{label}/{seed}.png": noise(seed + 100 * (label == "1_fake")) for seed in range(60)
             for label in ("0_real", "1_fake") for subset in "ac"}  # fmt: skip
    files |= {f"b/{label}/x.png": noise(500 + at) for at, label in enumerate(("0_real", "1_fake"))}
    root = write_files(tmp_path / "images", files)
    build(root, tmp_path / "none", train=["a", "c"])
    everything = {row["source"]: row["split"] for row in rows_of(tmp_path / "none")}
    published = {"train": {"a": [60, 60]}}
    counts = build(root, tmp_path / "some", train=["a", "c"], val_fraction=0.3, expected=published)
    drawn = {row["source"]: row["split"] for row in rows_of(tmp_path / "some")}
    assert {name for name in drawn if drawn[name] != "val"} == {name for name in drawn if drawn[name] == everything[name]}
    assert {everything[name] for name in drawn if drawn[name] == "val"} == {"train"}
    assert counts["leakage_between"] == {"train_val": 0, "train_test": 0, "val_test": 0}  # each image lies in a and in c
    assert 0.15 * 240 < sum(split == "val" for split in drawn.values()) < 0.45 * 240
    assert counts["unexpected"] == {}, "what validates was published as training images"


def test_validation_images_are_of_both_kinds_or_none(tmp_path, two_by_two):
    build(write_files(tmp_path / "images", two_by_two), tmp_path)
    with pytest.raises(DatasetError, match=r"`val` holds reals and no fakes; dataset.val = \['c'\] must reach images of both"):
        build(write_files(tmp_path / "images", {"c/0_real/x.png": noise(1)}), tmp_path, val=["c"])


def test_the_same_bytes_as_real_and_fake_are_refused_everywhere(tmp_path, two_by_two):
    same = noise(7)
    contradicted = {"a/0_real/c.png": same, "b/0_real/c.png": same, "b/1_fake/c.png": same}
    counts = build(write_files(tmp_path / "images", {**two_by_two, **contradicted, "b/1_fake/d.png": b""}), tmp_path)
    assert list(rejects_of(tmp_path)) == sorted(rejects_of(tmp_path))
    assert rejects_of(tmp_path) == {
        "a/0_real/c.png": "contradictory label: the same bytes are also listed as fake",
        "b/0_real/c.png": "contradictory label: the same bytes are also listed as fake",
        "b/1_fake/c.png": "contradictory label: the same bytes are also listed as real",
        "b/1_fake/d.png": "empty file (0 bytes)",
    }
    assert (counts["images"], counts["refused"]) == (4, 4)


def test_a_shared_subset_puts_no_image_in_both_splits(tmp_path):
    files = {f"{subset}/{label}/{seed}.png": noise(seed + 50 * (label == "1_fake")) for seed in range(25)
             for label in ("0_real", "1_fake") for subset in "ab"}  # fmt: skip
    counts = build(write_files(tmp_path / "images", files), tmp_path, train=["*"], test=["*"])
    assert (counts["images"], counts["duplicates"], counts["leakage"]) == (100, 50, 0)
    shares = [sum(sum(labels.values()) for labels in counts[split].values()) for split in ("train", "test")]
    assert min(shares) >= 20


def test_ignored_files_are_counted(tmp_path, two_by_two):
    strays = {"a/0_real/.DS_Store": b"", "notes.txt": b"", "c/0_real/x.png": b""}
    counts = build(write_files(tmp_path / "images", {**two_by_two, **strays}), tmp_path)
    assert counts["ignored"] == {
        "hidden": {"a": 1},
        "outside_label_folders": {".": 1},
        "unpacked_beside_the_archive": {},
        "in_no_split": {"c": 1},
    }


def test_a_split_left_with_one_class_is_an_error_and_the_refusals_are_written(tmp_path, two_by_two):
    root = write_files(tmp_path / "images", {**two_by_two, "b/1_fake/x.png": b""})
    with pytest.raises(DatasetError, match=r"split `test` holds reals and no fakes once 1 files are refused"):
        build(root, tmp_path)
    assert rejects_of(tmp_path) == {"b/1_fake/x.png": "empty file (0 bytes)"}
    assert not (tmp_path / "index.parquet").exists()


def test_unreadable_and_giant_files_are_refused(tmp_path, two_by_two, monkeypatch):
    root = write_files(tmp_path / "images", {**two_by_two, "a/0_real/locked.png": noise(3), "a/0_real/film.png": b""})
    os.truncate(root / "a/0_real/film.png", 2**33)  # a hole of 8 GiB: reading it would take them
    really = reading.open_file

    def forbidden(path: Path) -> int:
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return really(path)

    monkeypatch.setattr(reading, "open_file", forbidden)
    build(root, tmp_path)
    assert rejects_of(tmp_path) == {
        "a/0_real/locked.png": "no permission to read it",
        "a/0_real/film.png": "8589934592 bytes: no image of dataset.max_pixels = 1000000 takes more than 67108864",
    }


class CountingPool:
    """Stands in for the process pool and counts what is under way."""

    def __init__(self) -> None:
        self.under_way = self.most = 0

    def __call__(self, *_, **__) -> CountingPool:
        return self

    def __enter__(self) -> CountingPool:
        return self

    def __exit__(self, *_) -> None:
        pass

    def submit(self, function: Callable, *arguments) -> Future:
        pool = self
        pool.under_way += 1
        pool.most = max(pool.most, pool.under_way)

        class Lazy(Future):
            def result(self, timeout=None):
                pool.under_way -= 1
                return function(*arguments)

        return Lazy()


def test_few_tasks_are_under_way_at_a_time(tmp_path, two_by_two, monkeypatch):
    many = {f"a/0_real/{k}.png": two_by_two["a/0_real/x.png"] for k in range(60)}
    root = write_files(tmp_path / "images", {**two_by_two, **many})
    pool = CountingPool()
    monkeypatch.setattr(index, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(index, "CHUNK", 1)
    assert build(root, tmp_path, workers=2)["images"] == 64
    assert pool.most == 8


def test_a_dead_worker_is_explained(tmp_path, two_by_two, monkeypatch):
    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    monkeypatch.setattr(index, "CHUNK", 1)
    many = {f"a/0_real/{k}.png": two_by_two["a/0_real/x.png"] for k in range(60)}
    root = write_files(tmp_path / "images", {**two_by_two, **many})
    with pytest.raises(DatasetError, match=r"a worker process died at .* or up to 8 files behind it.*NULLSCOPE_WORKERS=1"):
        build(root, tmp_path, workers=2, progress=kill)
    assert not (tmp_path / "index.parquet").exists()


def test_an_empty_table_has_the_columns_of_the_contract():
    rows, refused = index._without_contradictions(pa.Table.from_batches([], INDEX))
    assert (rows.num_rows, refused) == (0, [])


def run_stage(project: Path, **params) -> subprocess.CompletedProcess:
    text = f"dataset: {{name: small, root: {params['root']}, train: [a], test: [b], train_fraction: 0.5, max_pixels: 1000000}}\n"
    (project / "params.yaml").write_text(text + "patches: {patch_px: 32}\n")
    environment = {**os.environ, "NULLSCOPE_WORKERS": "2"}
    return subprocess.run([sys.executable, STAGE], cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_the_stage_prints_what_it_read_wrote_and_refused(tmp_path, two_by_two):
    write_files(tmp_path / "images", {**two_by_two, "a/0_real/bad1.png": b"", "a/0_real/bad2.png": b"", ".hidden": b""})
    done = run_stage(tmp_path, root="images")
    assert done.returncode == 0, done.stderr
    shared = "0 in train and val, 0 in train and test, 0 in val and test"
    assert f"4 images (0 repeated; {shared}) -> data/index.parquet" in done.stdout
    assert "warning: no validation images, so no threshold can be chosen" in done.stdout
    assert "refused        2  empty file (N bytes)" in done.stdout
    assert (tmp_path / "metrics/index.json").exists()


def test_the_stage_ends_with_one_line_where_the_root_is_missing(tmp_path):
    shutil.rmtree(tmp_path / "images", ignore_errors=True)
    done = run_stage(tmp_path, root="images")
    assert done.returncode == 1
    assert "error: dataset.root = images: expected a folder of images" in done.stderr
    assert "Traceback" not in done.stderr
