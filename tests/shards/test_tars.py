"""Shards in a bucket: read as from the disk by any number of workers; what is missing, changed or forbidden is named."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PATCHES, write_noise_shards

from nullscope.core.contracts import SHARD_KINDS, SPLITS, ContractError
from nullscope.images.transforms import PatchMosaic
from nullscope.report.figures.examples import read_examples
from nullscope.shards import tars
from nullscope.shards import upload as module
from nullscope.shards.loading import read_whole, training_batches
from nullscope.shards.reading import list_shards, read_shard
from nullscope.shards.tars import RECORD, StoreError
from nullscope.shards.upload import total_bytes, upload
from nullscope.shards.writing import write_manifest

VIEW = PatchMosaic(PATCHES.cells, 0.5)
ROOT = Path(__file__).parents[2]
FIRST = SHARD_KINDS[0], SPLITS[0]
TARS = 10  # of `shards`


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A folder as the stage `shard` writes it: five tars of mosaics to train on, one in each of the other folders."""
    root = tmp_path_factory.mktemp("shards")
    for view in SHARD_KINDS:
        for split in SPLITS:
            write_noise_shards(root / view / split, view, PATCHES, images=10, per_shard=2 if (view, split) == FIRST else 10)
    return root


class Folder:
    """A place that is a folder, as one that is mounted."""

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, str(root / "shards")

    def path(self, name: str) -> str:
        return f"{self.url}/patches/train/{name}"

    def read(self, name: str) -> bytes:
        return Path(self.path(name)).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        Path(self.path(name)).write_bytes(data)

    def delete(self, name: str) -> None:
        Path(self.path(name)).unlink()


class Bucket:
    """A bucket of a server that speaks S3, in a process of its own (moto)."""

    def __init__(self, endpoint: str, name: str) -> None:
        import s3fs

        self.endpoint, self.url = endpoint, f"s3://{name}/some/prefix"
        self.fs = s3fs.S3FileSystem(endpoint_url=endpoint, key="test", secret="test", use_listings_cache=False)
        self.fs.mkdir(name)

    def path(self, name: str) -> str:
        return f"{self.url}/patches/train/{name}"

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self.path(name), data)

    def delete(self, name: str) -> None:
        self.fs.rm_file(self.path(name))


@pytest.fixture(scope="module")
def endpoint() -> str:
    """The address of the server; started once, ended with the module."""
    for package in ("moto", "s3fs"):
        if not find_spec(package):
            pytest.skip(f"{package} is not installed (`pip install 'moto[server]' s3fs`): no server that speaks S3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5):
                break
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(endpoint, monkeypatch) -> str:
    """fsspec's configuration, as FSSPEC_S3_ENDPOINT_URL and the rest make it at its import."""
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint, "key": "test", "secret": "test"})
    return endpoint


@pytest.fixture
def bucket(s3, request) -> Bucket:
    return Bucket(s3, "b" + str(abs(hash(request.node.name))))


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path) -> Folder | Bucket:
    return Folder(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")


@pytest.fixture
def uploaded(place, shards, tmp_path, monkeypatch) -> tuple[Folder | Bucket, Path]:
    """A place with all shards, and a project that has nothing but their records."""
    list(upload(shards, place.url))
    records = tmp_path / "project/data/shards"
    shutil.copytree(shards, records, ignore=shutil.ignore_patterns("*.tar", "files"))
    monkeypatch.setenv("NULLSCOPE_SHARDS", place.url)
    return place, records


def read_all(folder: Path) -> list[tuple[str, int, bytes]]:
    return [sample for shard in list_shards(folder) for sample in read_shard(shard.path)]


def test_what_is_read_is_what_is_on_the_disk(uploaded, shards, monkeypatch):
    _, records = uploaded
    elsewhere = {(view, split): read_all(records / view / split) for view in SHARD_KINDS for split in SPLITS}
    monkeypatch.delenv("NULLSCOPE_SHARDS")
    for (view, split), samples in elsewhere.items():
        assert len(samples) == 10
        assert samples == read_all(shards / view / split)


def test_a_validation_split_without_images_is_none_there_either(place, shards, tmp_path, monkeypatch):
    shutil.copytree(shards, tmp_path / "data/shards")
    for kind in SHARD_KINDS:
        shutil.rmtree(tmp_path / "data/shards" / kind / "val")
        write_manifest(tmp_path / "data/shards" / kind / "val", {})
    assert len([tar for tar in upload(tmp_path / "data/shards", place.url) if tar.sent]) == TARS - 2
    monkeypatch.setenv("NULLSCOPE_SHARDS", place.url)
    for kind in SHARD_KINDS:
        assert list_shards(tmp_path / "data/shards" / kind / "val") == []
        assert len(list_shards(tmp_path / "data/shards" / kind / "test")) == 1


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_from_the_disk_whatever_the_number_of_workers(uploaded, shards, workers, monkeypatch):
    """The workers are forked after this process has used its own connection to the store."""
    _, records = uploaded

    def batches(folder, workers):
        listed = list_shards(folder)
        return list(training_batches(listed, VIEW, batch_size=3, seed=0, epoch=1, skip=0, workers=workers))

    elsewhere = batches(records / "patches/train", workers)
    whole = [rows.image_ids for rows in read_whole(list_shards(records / "patches/train"), VIEW, workers=workers)]
    monkeypatch.delenv("NULLSCOPE_SHARDS")
    here = batches(shards / "patches/train", 0)
    assert len(here) == 3 and [batch.image_ids for batch in elsewhere] == [batch.image_ids for batch in here]
    for one, other in zip(elsewhere, here, strict=True):
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in other.inputs)
    assert len(whole) == 5


def test_the_reports_examples_are_found_there_too(uploaded, shards, monkeypatch):
    _, records = uploaded
    elsewhere = read_examples(records)
    monkeypatch.delenv("NULLSCOPE_SHARDS")
    for one, other in zip(elsewhere, read_examples(shards), strict=True):
        assert one.image_id == other.image_id and np.array_equal(one.original_HWC, other.original_HWC)


def test_again_it_sends_nothing_and_a_change_sends_one_tar(place, shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy, ignore=shutil.ignore_patterns("files"))
    first, again = list(upload(copy, place.url)), list(upload(copy, f"{place.url}/"))
    assert [tar.sent for tar in first] == [True] * TARS and not any(tar.sent for tar in again)
    assert sum(tar.bytes for tar in first) == total_bytes(copy)
    manifest = copy / "patches/train/shards.json"
    shutil.copy(copy / "patches/train/train-000004.tar", copy / "patches/train/train-000001.tar")  # of the same size, maybe
    listed = json.loads(manifest.read_text())
    listed["shards"][1]["sha256"] = listed["shards"][4]["sha256"]
    manifest.write_text(json.dumps(listed))
    assert [number for number, tar in enumerate(upload(copy, place.url)) if tar.sent] == [1]
    assert place.read("train-000001.tar") == place.read("train-000004.tar")


def test_an_interrupted_upload_goes_on(place, shards, monkeypatch):
    monkeypatch.setattr(module, "RECORD_SECONDS", 0.0)
    running = upload(shards, place.url)
    assert [next(running).sent for _ in range(5)] == [True] * 5  # two groups: all five tars, their record not yet closed
    running.close()
    assert [tar.sent for tar in upload(shards, place.url)] == [False] * 5 + [True] * (TARS - 5)


def test_a_tar_on_the_disk_that_is_not_the_listed_one_is_not_sent(place, shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy, ignore=shutil.ignore_patterns("files"))
    (copy / "patches/train/train-000000.tar").write_bytes(b"something else")
    with pytest.raises(ContractError, match=r"train-000000\.tar is not what shards\.json lists"):
        list(upload(copy, place.url))
    (copy / "patches/train/train-000000.tar").unlink()
    with pytest.raises(ContractError, match=r"train-000000\.tar is listed and not there"):
        total_bytes(copy)


def test_a_missing_tar_is_named_before_anything_is_read(uploaded):
    place, records = uploaded
    place.delete("train-000002.tar")
    with pytest.raises(ContractError, match=r"missing: train-000002\.tar; of another version or cut off: none; run `null"):
        list_shards(records / "patches/train")


def test_a_tar_cut_off_is_named_before_anything_is_read(uploaded):
    place, records = uploaded
    place.write("train-000003.tar", place.read("train-000003.tar")[:-10_240])
    with pytest.raises(ContractError, match=r"missing: none; of another version or cut off: train-000003\.tar;"):
        list_shards(records / "patches/train")


def test_shards_of_another_version_are_named_before_anything_is_read(uploaded):
    _, records = uploaded
    manifest = records / "patches/train/shards.json"
    listed = json.loads(manifest.read_text())
    listed["shards"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(listed))
    with pytest.raises(ContractError, match=r"of another version or cut off: train-000000\.tar;"):
        list_shards(records / "patches/train")


def relabelled(data: bytes) -> bytes:
    """The first image has the other label: a tar that reads as well as before."""
    at = data.index(b'"label": ') + len(b'"label": ')
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES = {
    "a label": relabelled,
    "padding": lambda data: data[:-1] + b"\1",  # behind what a reader of tars reads
    "cut between samples": lambda data: data[: len(data) // 2 // 512 * 512],
    "cut inside": lambda data: data[:700],
    "empty": lambda data: b"",
    "something else": lambda data: b"<html>sign in to the wireless network</html>" * 40,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_changed_tar_is_an_error_before_one_of_its_images_trains(uploaded, damage):
    """After the look at names and sizes, or where a plain copy left no record: then the hash alone tells."""
    place, records = uploaded
    place.delete(RECORD)
    place.write("train-000001.tar", damage(place.read("train-000001.tar")))
    with pytest.raises(ContractError, match=r"train-000001\.tar: expected the SHA-256 [0-9a-f]{16}\.\.\. of shards\.json, found"):
        for rows in read_whole(list_shards(records / "patches/train"), VIEW, workers=1):
            assert rows.shard != 1


@pytest.mark.slow
def test_a_reader_who_stops_early_is_not_held_up(uploaded):
    _, records = uploaded
    samples = read_shard(records / "patches/train/train-000000.tar")
    assert len(next(samples)) == 3
    samples.close()


def test_a_tar_that_goes_away_meanwhile_is_named(uploaded):
    place, records = uploaded
    listed = list_shards(records / "patches/train")
    place.delete("train-000004.tar")
    with pytest.raises(StoreError, match=r"train-000004\.tar: nothing there .*NULLSCOPE_SHARDS"):
        list(read_shard(listed[4].path))


def test_a_bucket_that_is_not_there_is_no_bucket_that_is_made(bucket, shards, monkeypatch):
    with pytest.raises(StoreError, match=r"no-such-bucket/x/patches/train: nothing there \(.*not exist.*create the bucket"):
        list(upload(shards, "s3://no-such-bucket/x"))
    monkeypatch.setenv("NULLSCOPE_SHARDS", "s3://no-such-bucket/x")
    with pytest.raises(StoreError, match="nothing there"):
        list_shards(shards / "patches/train")
    assert not bucket.fs.exists("no-such-bucket")


def test_no_permission_says_which_credentials(uploaded, endpoint, request):
    place, records = uploaded
    if isinstance(place, Folder):
        pytest.skip("the tests may run as root, whom no folder forbids anything")

    def allowed_requests(count: str) -> None:
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset-auth", count.encode(), plain)).close()

    request.addfinalizer(lambda: allowed_requests("inf"))
    allowed_requests("0")
    with pytest.raises(StoreError, match=r"no permission \(.*AWS_PROFILE"):
        list_shards(records / "patches/train")


def test_without_s3fs_the_extra_is_named(shards, monkeypatch):
    registry = importlib.import_module("fsspec.registry")  # the package's attribute of this name is its table
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    monkeypatch.setenv("NULLSCOPE_SHARDS", "s3://bucket/x")
    with pytest.raises(StoreError, match=r"s3fs.*pip install 'nullscope\[s3\]'"):
        list_shards(shards / "patches/train")


@pytest.mark.parametrize("url", ["s4://bucket/x", "s3:///x"])
def test_an_address_that_means_nothing_is_an_error_of_one_line(shards, url, monkeypatch, request):
    if url.startswith("s3"):
        request.getfixturevalue("s3")
    monkeypatch.setenv("NULLSCOPE_SHARDS", url)
    with pytest.raises(StoreError, match=r"check the address|correct the address"):
        list_shards(shards / "patches/train")


def test_a_server_that_does_not_answer_is_named(shards, monkeypatch):
    fsspec_config = pytest.importorskip("fsspec.config")
    pytest.importorskip("s3fs")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = {"endpoint_url": f"http://127.0.0.1:{unused.getsockname()[1]}", "key": "k", "secret": "s"}
        monkeypatch.setitem(fsspec_config.conf, "s3", {**closed, "config_kwargs": {"retries": {"max_attempts": 0}}})
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
        monkeypatch.setenv("NULLSCOPE_SHARDS", "s3://bucket/x")
        with pytest.raises(StoreError, match=r"check the address, the endpoint \(FSSPEC_S3_ENDPOINT_URL\)"):
            list_shards(shards / "patches/train")


@pytest.mark.slow
def test_the_command_and_a_process_with_nothing_but_the_environment(bucket, shards, tmp_path):
    """As people do it: fsspec takes the endpoint and the keys from the environment."""
    variables = {"FSSPEC_S3_ENDPOINT_URL": bucket.endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT / "src")}
    upload_to = [sys.executable, "-c", "from nullscope.cli import main; main()", "upload-shards", "--shards", str(shards)]
    for expected in (f"{TARS} tars sent", f"0 tars sent (0.0 MB), {TARS} were there"):
        done = subprocess.run([*upload_to, bucket.url], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and expected in done.stdout, done.stderr
    script = (
        "from pathlib import Path; from nullscope.shards.reading import list_shards, read_shard\n"
        f"print(sum(1 for shard in list_shards(Path({str(shards / 'images/test')!r})) for _ in read_shard(shard.path)))"
    )
    reader = [sys.executable, "-c", script]
    done = subprocess.run(reader, env={**environment, "NULLSCOPE_SHARDS": bucket.url}, capture_output=True, text=True)
    assert done.stdout == "10\n", done.stderr
    done = subprocess.run([*upload_to, "s3://no-such-bucket/x"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("Error: s3://no-such-bucket/x/patches/train: nothing")


def test_without_the_variable_no_connection_is_made(shards, monkeypatch):
    monkeypatch.delenv("NULLSCOPE_SHARDS", raising=False)
    monkeypatch.setattr(tars, "file_system", lambda url: pytest.fail("asked a store"))
    assert len(read_all(shards / "images/train")) == 10
