"""`nullscope fetch` from a hub over real sockets: everything, a part, again, and whatever may go wrong."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import pytest
from fetching.conftest import AIGIBENCH, CHUNK, noise, sentence
from fetching.hub_server import COMMIT, Fault, blob_id

from nullscope.fetching.checks import sole_writer

WANTED = ["test/ProGAN.zip", "test/note.txt", "train/car.zip", "train/cat.zip", "train/sdv1.4.zip"]


def on_disk(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".fetch.lock", "fetched.json")
    }


def record(folder):
    return json.loads((folder / "fetched.json").read_text())


def fetched(hub):
    return {name: hub.files[AIGIBENCH][name] for name in WANTED}


def test_everything_comes_and_is_verified(hub, fetch, tmp_path):
    result = fetch("aigibench")
    assert result.exit_code == 0, result.output
    assert on_disk(tmp_path / "data") == fetched(hub)  # and extra/ is left out
    found = record(tmp_path / "data")
    assert found["source"] == {"kind": "huggingface", "repository": AIGIBENCH, "revision": COMMIT}
    assert sorted(found["files"]) == WANTED
    for name, entry in found["files"].items():
        data = hub.files[AIGIBENCH][name]
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert f"aigibench: 5 files, 110 kB, verified in {tmp_path / 'data'}; 5 of them fetched now" in result.stdout
    assert f"dvc exp run -S dataset=aigibench -S dataset.root={tmp_path / 'data'}" in result.stdout


def test_the_pinned_revision_is_asked_for_and_the_token_stays_with_the_hub(hub, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch("aigibench", "--only", "train/car.zip").exit_code == 0
    listing, hub_file, cdn_file = hub.asked
    assert "/revision/e44ec40efe5117a5ccdaa6ff0e89ed934d03d310?" in listing.path
    assert f"/resolve/{COMMIT}/train/car.zip" in hub_file.path
    assert listing.headers["authorization"] == hub_file.headers["authorization"] == "Bearer hf_secret"
    assert cdn_file.path.startswith("/cdn/") and "authorization" not in cdn_file.headers


def test_a_second_run_asks_for_no_content(hub, fetch):
    fetch("aigibench")
    before = len(hub.contents())
    for more in ([], ["--verify"]):
        again = fetch("aigibench", *more)
        assert again.exit_code == 0 and "0 of them fetched now" in again.stdout
    assert len(hub.contents()) == before


def test_what_one_data_set_fetched_another_of_the_same_repository_has(hub, fetch, tmp_path):
    hub.files[AIGIBENCH] |= {"val/car.zip": noise(7, 900), "val/sdv1.4.zip": noise(8, 900)}
    fetch("aigibench_setting_1")
    assert sorted(on_disk(tmp_path / "data")) == [name for name in (*WANTED, "val/car.zip") if "sdv" not in name]
    before = len(hub.contents())
    assert "2 of them fetched now" in fetch("aigibench").stdout
    assert hub.contents()[before:] == [("train/sdv1.4.zip", None), ("val/sdv1.4.zip", None)]


def test_only_takes_a_part_and_names_what_there_is_when_nothing_fits(hub, fetch, tmp_path):
    assert fetch("aigibench", "--only", "test/*", "--only", "train/cat.zip").exit_code == 0
    assert sorted(on_disk(tmp_path / "data")) == ["test/ProGAN.zip", "test/note.txt", "train/cat.zip"]
    refused = sentence(fetch("aigibench", "--only", "test/*", "--only", "test/Progan.zip"))
    assert "test/Progan.zip" in refused and "test/ProGAN.zip, test/note.txt" in refused and "extra/" not in refused


def test_files_may_lie_elsewhere_than_in_the_repository(hub, fetch, tmp_path):
    data = noise(9, 3000)
    hub.files["sywang/CNNDetection"] = {"CNN_synth_testset.zip": data, "progan_train.7z.001": data, "progan_val.zip": data}
    result = fetch("forensynths")
    came = ["test/CNN_synth_testset.zip", "val/progan_val.zip", "volumes/progan_train.7z.001"]
    assert sorted(on_disk(tmp_path / "data")) == came
    assert f"7z x {tmp_path / 'data'}/volumes/progan_train.7z.001 -o{tmp_path / 'data'}/train" in result.stdout
    assert (
        "/revision/" not in hub.asked[0].path and f"/resolve/{COMMIT}/" in hub.asked[1].path
    )  # no pin: what is found is recorded
    assert record(tmp_path / "data")["source"]["revision"] == COMMIT


def test_dry_run_writes_nothing(hub, fetch, tmp_path):
    planned = fetch("aigibench", "--dry-run")
    assert planned.exit_code == 0 and not (tmp_path / "data").exists() and not hub.contents()
    assert "110 kB to be fetched" in planned.stdout and "free there; nothing was fetched" in planned.stdout
    hub.faults["train/car.zip"] = [Fault("cut", 9000), Fault("status", status=503)]
    fetch("aigibench", "--only", "train/c*")
    (tmp_path / "data/test").mkdir()
    (tmp_path / "data/test/note.txt").write_text("not in LFS")
    fetch("aigibench", "--only", "train/cat.zip")
    states = [line.split(maxsplit=3)[-1].strip() for line in fetch("aigibench", "--dry-run").stdout.splitlines()[1:6]]
    assert states == ["to be fetched", "there, to be checked", f"{2 * CHUNK / 1000:.3g} kB there", "verified", "to be fetched"]


def test_a_connection_that_ends_is_taken_up_at_once(hub, fetch, tmp_path):
    hub.faults["train/car.zip"] = [Fault("cut", 30_000)]
    assert fetch("aigibench", "--only", "train/car.zip").exit_code == 0
    assert hub.contents() == [("train/car.zip", None), ("train/car.zip", f"bytes={30_000 // CHUNK * CHUNK}-")]
    assert on_disk(tmp_path / "data")["train/car.zip"] == hub.files[AIGIBENCH]["train/car.zip"]


def test_a_connection_that_is_reset_is_taken_up_at_once(hub, fetch, tmp_path):
    """The client itself gives up here."""
    hub.faults["train/car.zip"] = [Fault("reset", 30_000), Fault("reset", 10_000)]
    assert fetch("aigibench", "--only", "train/car.zip").exit_code == 0
    ranges = [wanted for _, wanted in hub.contents()]
    assert len(ranges) == 3 and ranges[0] is None and all(wanted.startswith("bytes=") for wanted in ranges[1:])
    assert on_disk(tmp_path / "data")["train/car.zip"] == hub.files[AIGIBENCH]["train/car.zip"]


def test_the_next_run_continues_where_one_broke_off(hub, fetch, tmp_path):
    hub.faults["train/car.zip"] = [Fault("cut", 30_000), Fault("status", status=503)]
    assert "found 503" in sentence(fetch("aigibench"))
    begun = 30_000 // CHUNK * CHUNK
    digest = hashlib.sha256(hub.files[AIGIBENCH]["train/car.zip"]).hexdigest()
    partial = tmp_path / f"data/train/.car.zip.{digest[:12]}.partial"
    assert partial.stat().st_size == begun and not (tmp_path / "data/train/car.zip").exists()
    assert sorted(record(tmp_path / "data")["files"]) == ["test/ProGAN.zip", "test/note.txt"]
    before = len(hub.contents())
    assert fetch("aigibench").exit_code == 0
    rest = [("train/car.zip", f"bytes={begun}-"), ("train/cat.zip", None), ("train/sdv1.4.zip", None)]
    assert hub.contents()[before:] == rest
    assert on_disk(tmp_path / "data") == fetched(hub)


def test_a_hub_that_cannot_continue_sends_all_of_it(hub, fetch, tmp_path):
    hub.faults["train/car.zip"] = [Fault("cut", 30_000), Fault("status", status=503)]
    fetch("aigibench", "--only", "train/car.zip")
    hub.ranges = False
    assert fetch("aigibench", "--only", "train/car.zip").exit_code == 0
    assert on_disk(tmp_path / "data") == {"train/car.zip": hub.files[AIGIBENCH]["train/car.zip"]}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_a_stopped_run_had_is_not_fetched_again(hub, fetch, tmp_path, how):
    """The hub sends a part and no more, however often it is asked, until the run has been stopped."""
    hub.faults["train/car.zip"] = [Fault("stall", 30_000), *[Fault("stall")] * 20]
    code = (  # a shell without job control starts its background jobs, and so their children, with SIGINT ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = {CHUNK}; from nullscope.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "fetch", "aigibench", "--to", str(tmp_path / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert hub.stalled.wait(30)
        deadline = 200
        while deadline and not any(path.stat().st_size for path in (tmp_path / "data/train").glob(".car.zip.*.partial")):
            deadline -= 1
            hub.release.wait(0.05)
        process.send_signal(how)
        _, complaint = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    hub.faults.clear()
    if how == signal.SIGINT:
        assert process.returncode == 2 and complaint.startswith("Error: interrupted: ") and complaint.count("\n") == 1
    before = len(hub.contents())
    assert fetch("aigibench").exit_code == 0
    again = hub.contents()[before:]
    assert [name for name, _ in again] == ["train/car.zip", "train/cat.zip", "train/sdv1.4.zip"]
    assert again[0][1] is not None and int(again[0][1].removeprefix("bytes=").rstrip("-")) > 0
    assert on_disk(tmp_path / "data") == fetched(hub)


@pytest.mark.parametrize("name", ["train/car.zip", "test/note.txt"])
def test_changed_bytes_do_not_count(hub, fetch, tmp_path, name):
    """Neither those of LFS nor the small ones of git; what came is kept under another name."""
    good = hub.files[AIGIBENCH][name]
    hub.sent[name] = bad = good[:-1] + bytes([good[-1] ^ 1])
    complaint = sentence(fetch("aigibench", "--only", name))
    path = tmp_path / "data" / name
    digest = blob_id if name.endswith(".txt") else lambda data: hashlib.sha256(data).hexdigest()
    assert (
        str(path) in complaint and digest(good) in complaint and digest(bad) in complaint and f"{path.name}.corrupt" in complaint
    )
    assert on_disk(tmp_path / "data") == {f"{name}.corrupt": bad}
    assert record(tmp_path / "data")["files"] == {}
    hub.sent.clear()
    assert fetch("aigibench", "--only", name).exit_code == 0
    assert on_disk(tmp_path / "data")[name] == good


def test_verify_finds_what_changed_on_the_disk(hub, fetch, tmp_path):
    """Even where size and time are as they were."""
    fetch("aigibench", "--only", "train/*")
    path = tmp_path / "data/train/car.zip"
    times, data = path.stat(), bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fetch("aigibench", "--only", "train/*").exit_code == 0
    complaint = sentence(fetch("aigibench", "--only", "train/*", "--verify"))
    assert str(path) in complaint and hashlib.sha256(data).hexdigest() in complaint and "move it away" in complaint
    assert "train/car.zip" not in record(tmp_path / "data")["files"]
    os.utime(path)
    assert sentence(fetch("aigibench", "--only", "train/*")) == complaint  # another time: read again
    path.unlink()
    assert "1 of them fetched now" in fetch("aigibench", "--only", "train/*").stdout


def test_a_file_that_was_there_is_used_if_it_is_the_same_and_never_replaced(hub, fetch, tmp_path):
    folder = tmp_path / "data/train"
    folder.mkdir(parents=True)
    (folder / "car.zip").write_bytes(hub.files[AIGIBENCH]["train/car.zip"])
    assert "0 of them fetched now" in fetch("aigibench", "--only", "train/car.zip").stdout
    (folder / "cat.zip").write_bytes(b"mine")
    complaint = sentence(fetch("aigibench"))
    assert "cat.zip: expected 20000 bytes, found 4 bytes" in complaint and (folder / "cat.zip").read_bytes() == b"mine"
    assert not hub.contents()


def test_a_folder_of_another_repository_is_refused(hub, fetch, tmp_path):
    hub.files["sywang/CNNDetection"] = {"CNN_synth_testset.zip": b"x"}
    fetch("aigibench", "--only", "test/*")
    assert f"holds {AIGIBENCH}" in sentence(fetch("forensynths"))
    (tmp_path / "data/fetched.json").write_text("{")
    assert "cannot be read as one" in sentence(fetch("aigibench"))


def test_one_writer_at_a_time(hub, fetch, tmp_path):
    with sole_writer(tmp_path / "data"):
        assert "another `nullscope fetch` is writing there" in sentence(fetch("aigibench"))
    assert fetch("aigibench").exit_code == 0


def test_a_disk_without_room_is_told_before_anything_is_fetched(hub, fetch, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 100_000))
    complaint = sentence(fetch("aigibench"))
    assert "expected 110 kB free" in complaint and "found 100 kB" in complaint and not hub.contents()
    hub.faults["train/car.zip"] = [Fault("cut", 30_000), Fault("status", status=503)]
    assert "found 503" in sentence(fetch("aigibench", "--only", "train/*"))  # 100 kB needed and there
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 100_000 - 28_672))
    assert fetch("aigibench", "--only", "train/*").exit_code == 0  # what is begun counts


def test_a_disk_that_fills_up_is_told(hub, fetch, tmp_path):
    digest = hashlib.sha256(hub.files[AIGIBENCH]["train/car.zip"]).hexdigest()
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / f"data/train/.car.zip.{digest[:12]}.partial").symlink_to("/dev/full")  # whose writes find no room
    assert "expected room on the disk, found it full; make room and run the same" in sentence(fetch("aigibench"))


def test_a_place_that_cannot_be_written_is_named(hub, fetch, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}: expected a folder to write to" in sentence(fetch("aigibench", to=tmp_path / "file"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").write_text("")
    assert f"{tmp_path / 'data/train'}" in sentence(fetch("aigibench", "--only", "train/car.zip"))


def test_a_name_that_leads_out_of_the_folder_is_refused(hub, fetch, tmp_path):
    hub.files[AIGIBENCH]["test/../../outside.txt"] = b"x"
    assert "test/../../outside.txt" in sentence(fetch("aigibench"))
    assert not (tmp_path / "outside.txt").exists()


GATED = Fault("status", status=403, code="GatedRepo")
REFUSALS = {
    "gated": (GATED, "found 403: the data set is gated; accept its terms"),
    "gated_without_account": (Fault("status", status=401, code="GatedRepo"), "found 401: the data set is gated"),
    "forbidden": (Fault("status", status=403), "without a token, found 403"),
    "missing": (Fault("status", status=404, code="RepoNotFound"), "expected a data set of this name without a token, found 404"),
    "private": (Fault("status", status=401), "it is private, was moved or removed"),
    "revision": (Fault("status", status=404, code="RevisionNotFound"), "take the newest with --revision main"),
    "busy": (Fault("status", status=500), "found 500: it is busy or out of order; in a while, run the same command again"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_explained(hub, fetch, name):
    hub.listing_fault, expected = REFUSALS[name]
    complaint = sentence(fetch("aigibench"))
    assert complaint.startswith(AIGIBENCH) and expected in complaint


def test_refusals_of_a_file_are_explained(hub, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another_account")
    hub.faults["test/ProGAN.zip"] = [GATED]
    assert "with the token given, found 403: the data set is gated" in sentence(fetch("aigibench"))
    hub.faults["test/ProGAN.zip"] = [Fault("status", status=404, code="EntryNotFound")]
    assert "the files are being changed" in sentence(fetch("aigibench"))


def test_another_revision_can_be_asked_for(hub, fetch):
    assert fetch("aigibench", "--revision", "main", "--dry-run").exit_code == 0
    assert "/revision/main?" in hub.asked[-1].path
    assert "expected the revision nowhere, found none" in sentence(fetch("aigibench", "--revision", "nowhere"))


def test_a_repository_laid_out_anew_is_told(hub, fetch):
    hub.files[AIGIBENCH] = {"data/one.parquet": b"x"}
    assert "expected files like train/* and val/* and test/*, found data/one.parquet" in sentence(fetch("aigibench"))


def test_no_network(fetch, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    complaint = sentence(fetch("aigibench"))
    assert "expected a connection to the hub" in complaint and "HF_ENDPOINT" in complaint
    assert not (tmp_path / "data").exists()
