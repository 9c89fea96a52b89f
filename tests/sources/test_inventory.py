"""The inventory: equal folders give equal bytes, and the second time hardly anything is read."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sqlite3
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images.bad_images import write_files

from nullscope.sources import inventory
from nullscope.sources.dataset import DatasetError, DatasetParams
from nullscope.sources.inventory import build_inventory

FILES = {
    f"{subset}/{label}/{k}.png": f"{subset}{label}{k}".encode()
    for subset in "ab"
    for label in ("0_real", "1_fake")
    for k in range(3)
}


def params(root: Path, **changes) -> DatasetParams:
    values = {"name": "small", "train": ["a"], "test": ["b"], "train_fraction": 0.5, "max_pixels": 10**6, **changes}
    return DatasetParams(root=str(root), **values)


def build(root: Path, out: Path) -> dict[str, int]:
    return build_inventory(params(root), path=out / "inventory.csv", cache_path=out / "cache" / "hashes.sqlite", workers=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "images", FILES)


def test_every_file_has_its_hash_and_every_refusal_its_reason(root, tmp_path):
    os.symlink("nowhere", root / "a/0_real/dangling.png")
    with open(os.path.join(os.fsencode(root), b"a/0_real/\xff.png"), "wb") as file:
        file.write(b"x")
    (root / "readme.txt").write_bytes(b"no image")
    counts = build(root, tmp_path)
    with open(tmp_path / "inventory.csv", encoding="utf-8", newline="") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    assert counts == {"files": len(FILES), "refused": 2, "hashed": len(FILES)}
    assert rows.keys() == FILES.keys() | {"a/0_real/dangling.png", "a/0_real/\\xff.png"}
    for name, data in FILES.items():
        assert (rows[name]["sha256"], rows[name]["reason"]) == (hashlib.sha256(data).hexdigest(), "")
    assert (rows["a/0_real/dangling.png"]["sha256"], rows["a/0_real/\\xff.png"]["sha256"]) == ("", "")
    assert "UTF-8" in rows["a/0_real/\\xff.png"]["reason"]
    assert str(tmp_path) not in (tmp_path / "inventory.csv").read_text()


def test_bytes_depend_on_the_files_alone(root, tmp_path, monkeypatch):
    build(root, tmp_path)
    first = (tmp_path / "inventory.csv").read_bytes()
    assert build(root, tmp_path)["hashed"] == 0
    assert (tmp_path / "inventory.csv").read_bytes() == first
    copy = write_files(tmp_path / "copy", dict(reversed(FILES.items())))
    os.utime(copy / "a/0_real/0.png", (1_500_000_000, 1_500_000_000))
    monkeypatch.setattr(inventory, "CHUNK", 2)
    build(copy, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/inventory.csv").read_bytes() == first


def test_a_changed_file_is_hashed_again(root, tmp_path):
    build(root, tmp_path)
    (root / "a/0_real/1.png").write_bytes(b"other, of another size")
    assert build(root, tmp_path)["hashed"] == 1
    assert hashlib.sha256(b"other, of another size").hexdigest() in (tmp_path / "inventory.csv").read_text()


def test_a_young_file_is_not_remembered(root, tmp_path):
    (root / "a/0_real/1.png").write_bytes(b"young")  # a second write within the clock's tick would keep size and time
    build(root, tmp_path)
    assert build(root, tmp_path)["hashed"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"this is no database" * 100,
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"tablehash_1", b"tablehas\x80_1"),  # SQLite's error then holds a name that is not UTF-8
    ],
)
def test_a_damaged_cache_is_made_anew(root, tmp_path, damage):
    build(root, tmp_path)
    good = (tmp_path / "inventory.csv").read_bytes()
    cache = tmp_path / "cache/hashes.sqlite"
    cache.write_bytes(damage(cache.read_bytes()))
    build(root, tmp_path)
    build(root, tmp_path)
    assert (tmp_path / "inventory.csv").read_bytes() == good
    assert build(root, tmp_path)["hashed"] == 0


@pytest.mark.parametrize("value", ["text", 5, b"short"])
def test_a_remembered_hash_of_another_kind_is_no_hash(root, tmp_path, value):
    build(root, tmp_path)
    with closing(sqlite3.connect(tmp_path / "cache/hashes.sqlite")) as connection, connection:
        connection.execute("UPDATE hash_1 SET sealed = ?", (value,))
    assert build(root, tmp_path)["hashed"] == len(FILES)


@given(place=st.floats(0, 1, exclude_max=True), content=st.binary(min_size=1, max_size=4000))
@settings(max_examples=15, deadline=None)
def test_no_damage_to_the_cache_changes_the_list(tmp_path_factory, place, content):
    tmp_path = tmp_path_factory.mktemp("damage")
    root = write_files(tmp_path / "images", FILES)
    build(root, tmp_path)
    good = (tmp_path / "inventory.csv").read_bytes()
    cache = tmp_path / "cache/hashes.sqlite"
    damaged = bytearray(cache.read_bytes())
    start = int(place * len(damaged))
    damaged[start : start + len(content)] = content
    cache.write_bytes(bytes(damaged))
    build(root, tmp_path)
    assert (tmp_path / "inventory.csv").read_bytes() == good


def test_a_flipped_bit_in_a_remembered_hash_is_noticed(root, tmp_path):
    build(root, tmp_path)
    good = (tmp_path / "inventory.csv").read_bytes()
    cache = tmp_path / "cache/hashes.sqlite"
    remembered = hashlib.sha256(FILES["a/0_real/0.png"]).digest()
    assert remembered in cache.read_bytes()
    cache.write_bytes(cache.read_bytes().replace(remembered, remembered[:-1] + bytes([remembered[-1] ^ 1])))
    assert build(root, tmp_path)["hashed"] == 1
    assert (tmp_path / "inventory.csv").read_bytes() == good


def test_an_unusable_cache_only_costs_time(root, tmp_path):
    (tmp_path / "cache/hashes.sqlite").mkdir(parents=True)
    assert build(root, tmp_path)["hashed"] == len(FILES)
    assert build(root, tmp_path)["hashed"] == len(FILES)


def test_a_locked_cache_is_done_without_and_left_whole(root, tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "LOCK_WAIT_S", 0.05)
    build(root, tmp_path)
    other = sqlite3.connect(tmp_path / "cache/hashes.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    file = (tmp_path / "cache/hashes.sqlite").stat().st_ino
    assert build(root, tmp_path)["hashed"] == len(FILES)
    other.close()
    assert (tmp_path / "cache/hashes.sqlite").stat().st_ino == file
    assert build(root, tmp_path)["hashed"] == 0


def test_two_inventories_at_a_time_share_the_cache(root, tmp_path):
    def one(number: int) -> bytes:
        out = tmp_path / f"inventory{number}.csv"
        build_inventory(params(root), path=out, cache_path=tmp_path / "shared.sqlite", workers=2)
        return out.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    with closing(sqlite3.connect(tmp_path / "shared.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM hash_1").fetchone() == (len(FILES),)


def test_a_file_that_vanishes_or_is_forbidden_has_a_reason(root, tmp_path, monkeypatch):
    def forbidden(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(inventory, "sha256", forbidden)
    assert build(root, tmp_path) == {"files": 0, "refused": len(FILES), "hashed": len(FILES)}
    assert "no permission to read it" in (tmp_path / "inventory.csv").read_text()


def test_a_missing_root_leaves_no_half_written_file(tmp_path):
    with pytest.raises(DatasetError):
        build(tmp_path / "absent", tmp_path)
    assert not list(tmp_path.glob("*inventory*"))


def test_an_archive_is_one_file_and_a_manifest_lists_what_it_names(root, tmp_path):
    with zipfile.ZipFile(root / "a/0_real/more.zip", "w") as archive:
        archive.writestr("x.png", b"1")
        archive.writestr("y.png", b"2")
    rows = (
        "source,label,subset\na/0_real/0.png,real,s\na/0_real/more.zip::x.png,fake,s\na/0_real/more.zip::y.png,fake,s\n,real,s\n"
    )
    (root / "m.csv").write_text(rows)
    build(root, tmp_path)
    walked = {row["source"]: row["sha256"] for row in csv.DictReader(open_text(tmp_path / "inventory.csv"))}
    assert walked.keys() == FILES.keys() | {"a/0_real/more.zip"}
    build_inventory(params(root, manifest="m.csv"), path=tmp_path / "m.csv", cache_path=tmp_path / "h.sqlite", workers=1)
    listed = list(csv.DictReader(open_text(tmp_path / "m.csv")))
    assert [row["source"] for row in listed] == ["m.csv", "a/0_real/0.png", "a/0_real/more.zip", "m.csv, row 5"]
    assert (
        listed[2]["sha256"]
        == walked["a/0_real/more.zip"]
        == hashlib.sha256((root / "a/0_real/more.zip").read_bytes()).hexdigest()
    )
    assert listed[3] == {"source": "m.csv, row 5", "sha256": "", "reason": "a row without a source"}


def open_text(path: Path) -> io.StringIO:
    return io.StringIO(path.read_text(encoding="utf-8"))
