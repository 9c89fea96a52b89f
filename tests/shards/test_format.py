"""Shards: the same bytes on every machine, read back as they were written."""

import io
import tarfile

import numpy as np
import pytest
from conftest import PATCHES, noise_image
from PIL import Image

from nullscope.core.contracts import ContractError, image_id
from nullscope.images.decoder import decode
from nullscope.ops.patches import select
from nullscope.shards.plan import Tar, write_manifests, write_tars
from nullscope.shards.reading import decode_mosaic, list_shards, read_shard
from nullscope.shards.writing import encode_mosaic, write_shard
from nullscope.tables.listing import Item


@pytest.fixture
def items(tmp_path):
    found = []
    for seed in range(6):
        data = noise_image(seed, seed % 2)
        path = tmp_path / f"{seed}.png"
        path.write_bytes(data)
        found.append(Item(image_id(data), seed % 2, path, "PNG"))
    return sorted(found, key=lambda item: item.image_id)


def test_same_images_same_bytes(items, tmp_path):
    for name in ("a.tar", "b.tar"):
        write_shard(items, tmp_path / name, "patches", PATCHES, 10**6)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_members_carry_no_trace_of_the_machine(items, tmp_path):
    write_shard(items, tmp_path / "a.tar", "images", PATCHES, 10**6)
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert [m.name for m in members] == [f"{item.image_id}.{suffix}" for item in items for suffix in ("json", "png")]


def test_images_hold_the_original_bytes(items, tmp_path):
    write_shard(items, tmp_path / "a.tar", "images", PATCHES, 10**6)
    assert list(read_shard(tmp_path / "a.tar")) == [(i.image_id, i.label, i.source.read_bytes()) for i in items]


def test_patches_hold_the_selected_mosaic_losslessly(items, tmp_path):
    write_shard(items, tmp_path / "a.tar", "patches", PATCHES, 10**6)
    for item, (name, label, data) in zip(items, read_shard(tmp_path / "a.tar"), strict=True):
        assert (name, label) == (item.image_id, item.label)
        expected = select(decode(item.source.read_bytes(), max_pixels=10**6), PATCHES)
        assert np.array_equal(decode_mosaic(data), expected)


def test_mosaic_codec_is_lossless():
    mosaic = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(decode_mosaic(encode_mosaic(mosaic)), mosaic)
    assert Image.open(io.BytesIO(encode_mosaic(mosaic))).format == "WEBP"


def test_a_changed_file_is_refused_and_leaves_no_tar(items, tmp_path):
    items[3].source.write_bytes(b"something else")
    with pytest.raises(ContractError, match="has changed since it was indexed"):
        write_shard(items, tmp_path / "a.tar", "images", PATCHES, 10**6)
    assert not list(tmp_path.glob("*a.tar*"))


@pytest.mark.slow
def test_one_worker_or_two_write_the_same_folder(items, tmp_path):
    tars = [Tar(view, "train", n, items[2 * n : 2 * n + 2]) for view in ("patches", "images") for n in range(3)]
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        assert list(write_tars(tars, out, PATCHES, 10**6, workers)) == tars
        for view in ("patches", "images"):
            (out / view / "test").mkdir(parents=True)
        write_manifests(tars, out)
        found.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
        assert [shard.samples for shard in list_shards(out / "patches/train")] == [2, 2, 2]
    assert found[0] == found[1]


def test_only_the_validation_split_may_be_empty(items, tmp_path):
    """Its folders are there, with a list of nothing; an empty split of another kind is an error."""
    tars = [Tar("patches", "train", 0, items)]
    list(write_tars(tars, tmp_path, PATCHES, 10**6, 1))
    write_manifests(tars, tmp_path)
    assert [shard.samples for shard in list_shards(tmp_path / "patches/train")] == [6]
    assert list_shards(tmp_path / "patches/val") == list_shards(tmp_path / "images/val") == []
    for folder in ("patches/test", "images/train", "images/test"):
        with pytest.raises(ContractError, match="expected 0 tars, missing all"):
            list_shards(tmp_path / folder)
    (tmp_path / "patches/val/shards.json").unlink()
    with pytest.raises(ContractError, match=r"no readable shards\.json"):
        list_shards(tmp_path / "patches/val")


def test_a_foreign_sample_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x.png"), io.BytesIO())
    with pytest.raises(ContractError, match="expected image and json"):
        list(read_shard(tmp_path / "a.tar"))
