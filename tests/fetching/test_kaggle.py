"""`nullscope fetch` from Kaggle: its client against a server on this machine, where it is installed; what is said without it."""

import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from fetching.conftest import noise, sentence
from fetching.hub_server import Fault, Handler, Hub, serving

HANDLE = "superpotato9/dalle-recognition-dataset"
FILES = {"real/1.jpg": noise(1, 3000), "real/2.png": noise(2, 40), "fakeV2/fake-v2/1.jpg": noise(3, 60_000)}
needs_kagglehub = pytest.mark.skipif(importlib.util.find_spec("kagglehub") is None, reason="kagglehub is not installed")

# The client knows its server by name only; this gives the name another meaning before the command runs.
PROGRAM = """
import sys
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = sys.argv.pop(1)
from kagglehub import clients
clients.CHUNK_SIZE = 4096
from nullscope.cli import main
main()
"""


class KaggleHandler(Handler):
    """Kaggle's one call that is needed: it leads to the archive of a version."""

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.hub.listing_fault
        if fault:
            self.refuse(fault)
            return
        assert self.path == "/api/v1/datasets.DatasetApiService/DownloadDataset"
        version = wanted["datasetVersionNumber"]
        location = f"{self.hub.url}/cdn/{wanted['ownerSlug']}/{wanted['datasetSlug']}/{version}.zip"
        self.answer(302, b"", {"Location": location})


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, data in FILES.items():
            out.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def server():
    with serving(Hub({HANDLE: {"7.zip": archive()}}), KaggleHandler) as hub:
        yield hub


@pytest.fixture
def fetch(tmp_path, server):
    def run(*arguments):
        environment = {**os.environ, "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HOME": str(tmp_path)}
        command = [sys.executable, "-c", PROGRAM, server.url, "fetch", "dalle_recognition", "--to", str(tmp_path / "data")]
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        done.exit_code, done.output = done.returncode, done.stdout + done.stderr
        return done

    return run


def on_disk(folder):
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name not in (".fetch.lock", "fetched.json")}


@needs_kagglehub
def test_everything_comes_and_is_noted(fetch, server, tmp_path):
    done = fetch()
    assert done.exit_code == 0, done.output
    assert on_disk(tmp_path / "data") == FILES  # and nothing of the client's cache
    found = json.loads((tmp_path / "data/fetched.json").read_text())
    assert found["source"] == {"kind": "kaggle", "repository": HANDLE, "revision": "7"}
    assert {name: entry["sha256"] for name, entry in found["files"].items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }
    assert "dalle_recognition: 3 files in " in done.stdout and "-S dataset=dalle_recognition" in done.stdout
    before = len(server.asked)
    for more in ([], ["--verify"]):
        assert "0 of them fetched now" in fetch(*more).stdout
    assert len(server.asked) == before


@needs_kagglehub
def test_the_next_run_continues_where_one_broke_off(fetch, server, tmp_path):
    server.faults["7.zip"] = [Fault("cut", 30_000)]
    assert "expected a connection to Kaggle, found none or one that broke" in sentence(fetch())
    kept = tmp_path / "data/.kagglehub/datasets" / HANDLE / "7.archive"
    begun = kept.stat().st_size
    assert 0 < begun <= 30_000
    assert fetch().exit_code == 0
    # The client asks for the whole, reads how long it is, hangs up and asks for the rest.
    assert server.contents() == [("7.zip", None), ("7.zip", None), ("7.zip", f"bytes={begun}-")]
    assert on_disk(tmp_path / "data") == FILES


@needs_kagglehub
def test_a_run_that_was_killed_while_it_moved_files_is_taken_up(fetch, server, tmp_path):
    fetch()
    came = tmp_path / "data/.kagglehub/datasets" / HANDLE / "versions/7/real"
    came.mkdir(parents=True)
    (tmp_path / "data/.kagglehub/datasets" / HANDLE / "7.complete").touch()
    shutil.move(tmp_path / "data/real/2.png", came / "2.png")
    before = len(server.asked)
    assert "1 of them fetched now" in fetch().stdout
    assert on_disk(tmp_path / "data") == FILES and len(server.asked) == before


@needs_kagglehub
def test_what_changed_on_the_disk_is_found_and_what_is_gone_comes_again(fetch, tmp_path):
    fetch()
    changed = tmp_path / "data/real/1.jpg"
    changed.write_bytes(b"x")
    complaint = sentence(fetch())
    assert str(changed) in complaint and hashlib.sha256(b"x").hexdigest() in complaint and "move it away" in complaint
    changed.unlink()
    assert "1 of them fetched now" in fetch().stdout
    assert on_disk(tmp_path / "data") == FILES


@needs_kagglehub
def test_a_file_that_was_there_is_not_replaced(fetch, tmp_path):
    (tmp_path / "data/real").mkdir(parents=True)
    (tmp_path / "data/real/1.jpg").write_bytes(b"mine")
    assert "real/1.jpg" in sentence(fetch())
    assert (tmp_path / "data/real/1.jpg").read_bytes() == b"mine"


REFUSALS = {
    403: "Kaggle wants an account; accept the terms on the page of the data set and set KAGGLE_API_TOKEN",
    404: "expected version 7, found none",
    500: "expected an answer of Kaggle, found 500",
}


@needs_kagglehub
@pytest.mark.parametrize("status", REFUSALS)
def test_refusals_are_explained(fetch, server, status):
    server.listing_fault = Fault("status", status=status)
    assert REFUSALS[status] in sentence(fetch())


@needs_kagglehub
def test_an_archive_that_is_none_is_told(fetch, server):
    server.files[HANDLE]["7.zip"] = b"<html>a page</html>"
    complaint = sentence(fetch())
    assert ".kagglehub" in complaint and "run the same command again" in complaint


def test_dry_run_fetches_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from nullscope.cli import main; main()", "fetch", "dalle_recognition", "--dry-run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and done.stdout.startswith(f"Nothing was fetched: {HANDLE}, version 7, would go to ")


def test_without_the_client_its_package_is_named(monkeypatch, tmp_path):
    from click.testing import CliRunner

    from nullscope.cli import main

    monkeypatch.setitem(sys.modules, "kagglehub", None)
    complaint = sentence(CliRunner().invoke(main, ["fetch", "dalle_recognition", "--to", str(tmp_path / "data")]))
    assert "pip install 'nullscope[kaggle]'" in complaint
