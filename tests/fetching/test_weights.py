"""`nullscope fetch --weights`: whole files over real sockets, continued, verified, or refused."""

import hashlib
from dataclasses import replace

import pytest
from fetching.conftest import noise, sentence
from fetching.hub_server import Fault, Handler, Hub, serving

from nullscope.fetching import weights as module
from nullscope.records.licences import weights

DATA = noise(1, 3_000_000)
PLACE = "authors/NPR"


class Files(Handler):
    """A server of files that continues one only if it is still the same."""

    def send_content(self, path: str, data: bytes) -> None:
        tag = f'"{hashlib.sha1(b"blob %d" % len(data) + bytes(1) + data).hexdigest()}"'
        if self.headers.get("If-Range", tag) != tag:
            del self.headers["Range"]
        super().send_content(path, data)


@pytest.fixture
def server(monkeypatch):
    """A server that has NPR's file, and the list of weights that says so."""
    with serving(Hub({PLACE: {"NPR.pth": DATA}}), Files) as hub:
        rows = tuple(replace(row, url=f"{hub.url}/cdn/{PLACE}/NPR.pth") if row.name == "npr" else row for row in weights())
        monkeypatch.setattr(module, "weights", lambda: rows)
        yield hub


def listed(monkeypatch, **changes) -> None:
    """Have the list say something else of NPR's file."""
    rows = tuple(replace(row, **changes) if row.name == "npr" else row for row in module.weights())
    monkeypatch.setattr(module, "weights", lambda: rows)


def test_a_file_comes_whole_with_its_hash_and_the_command_that_reads_it(server, fetch, tmp_path):
    result = fetch("--weights", "npr")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "data" / "NPR.pth").read_bytes() == DATA
    assert hashlib.sha256(DATA).hexdigest() in result.output
    assert "nullscope import-weights npr" in result.output and "none found" in result.output
    assert fetch("--weights", "npr").exit_code == 0 and len(server.contents()) == 1, "what is there is not fetched again"


@pytest.mark.parametrize("changed", [False, True], ids=["the same file", "another file since"])
def test_what_was_cut_off_goes_on_unless_the_file_is_another(server, fetch, tmp_path, changed):
    server.faults["NPR.pth"] = [Fault("cut", after=2_000_000)]
    assert "broke" in sentence(fetch("--weights", "npr")) and not (tmp_path / "data" / "NPR.pth").exists()
    begun = (tmp_path / "data" / "NPR.pth.part").stat().st_size
    assert begun > 0
    whole = DATA if not changed else noise(2, 3_000_000)
    server.files[PLACE]["NPR.pth"] = whole
    assert fetch("--weights", "npr").exit_code == 0
    assert (tmp_path / "data" / "NPR.pth").read_bytes() == whole
    assert server.contents()[-1] == ("NPR.pth", f"bytes={begun}-")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".fetch.lock", "NPR.pth"]


def test_another_file_than_the_known_one_is_refused_and_does_not_stay(server, fetch, tmp_path, monkeypatch):
    listed(monkeypatch, sha256="0" * 64)
    assert "this is another file" in sentence(fetch("--weights", "npr"))
    assert not [path for path in (tmp_path / "data").iterdir() if path.name != ".fetch.lock"]
    (tmp_path / "data" / "NPR.pth").write_bytes(DATA)
    assert "move it away" in sentence(fetch("--weights", "npr"))
    assert (tmp_path / "data" / "NPR.pth").read_bytes() == DATA, "a file of the user's is never removed"


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_has_no_file_is_named(server, fetch, status):
    server.faults["NPR.pth"] = [Fault("status", status=status)]
    assert f"found status {status}; look at https://github.com/chuangchuangtan/NPR" in sentence(fetch("--weights", "npr"))


def test_a_web_page_is_no_file(server, fetch, monkeypatch):
    monkeypatch.setattr(Files, "send_content", lambda self, *_: self.answer(200, b"<html>", {"Content-Type": "text/html"}))
    assert "found a web page" in sentence(fetch("--weights", "npr"))


def test_weights_without_an_address_are_got_by_hand(fetch, tmp_path):
    result = fetch("--weights", "ladeda")
    assert result.exit_code == 0 and "by hand from https://github.com/barcavia" in result.output
    assert not (tmp_path / "data").exists()


def test_names_that_are_none_are_explained(fetch):
    assert "no released weights of 'nprr'" in sentence(fetch("--weights", "nprr"))
    assert "tiny_ladeda_forensynths, tiny_ladeda_wildrf" in sentence(fetch("--weights", "tiny_ladeda"))
    assert "leave DATASET" in sentence(fetch("genimage", "--weights", "npr"))


def test_a_dry_run_fetches_nothing(server, fetch, tmp_path):
    assert "would go to" in fetch("--weights", "npr", "--dry-run").output
    assert not server.asked and not (tmp_path / "data").exists()
