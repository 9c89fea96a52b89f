"""The server: the scores of the command, limits with clear answers, and nobody's bad request in anybody's way."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import requests
from PIL import Image

from nullscope import load
from nullscope.prediction import Judge


def head(kind: str, length: int) -> bytes:
    """The beginning of a request."""
    return f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def test_an_image_has_one_logit_by_http_and_by_the_command(server, folders, pictures):
    answer = server.score(*pictures[:3], ("x.txt", b"no image"))
    assert answer.status_code == 200
    *found, bad = answer.json()["files"]
    assert [row["name"] for row in found] == ["0.png", "1.png", "2.png"]
    for folder, at in zip(folders, range(2), strict=True):
        judge = load(folder, "cpu", anyway=True)
        for row, data in zip(found, pictures, strict=False):
            verdict, own = judge.predict(data), row["scores"][at]
            assert (own["model"], own["logit"], own["score"]) == (folder.name, verdict.logit, verdict.score)
            assert (own["answer"], own["threshold"], own["refused"]) == (verdict.answer, judge.decision.threshold, None)
    assert {own["refused"] for own in bad["scores"]} == {judge.predict(b"no image").refused}
    assert bad["scores"][0]["logit"] is None


def test_what_is_no_request_for_scores_is_told_so(server, pictures):
    post = f"{server.url}/v1/score"
    assert requests.post(post, data="x", timeout=20).status_code == 415
    assert requests.post(post, data={"a": "b"}, timeout=20).status_code == 415
    assert requests.post(post, files={"pictures": b"x"}, timeout=20).json() == {
        "error": "expected files in the field `files`, found none"
    }
    cut = requests.Request("POST", post, files={"files": pictures[0]}).prepare()
    cut.body = cut.body[:-20]
    cut.headers["Content-Length"] = str(len(cut.body))
    answer = requests.Session().send(cut, timeout=20)
    assert answer.status_code == 400 and "cut off" in answer.json()["error"]
    assert requests.get(post, timeout=20).status_code == 405
    assert server.score(pictures[0]).status_code == 200


def test_limits_of_a_request(server, pictures):
    assert server.score(*[pictures[0]] * 4).status_code == 200
    many = server.score(*[pictures[0]] * 5)
    assert many.status_code == 413 and "more than 4 files" in many.json()["error"]
    for size in (1, 30):  # MiB: the answer arrives although the rest of the body was not wanted
        large = server.score(bytes(size * 2**20))
        assert large.status_code == 413 and "1,048,576 bytes" in large.json()["error"]
    file = io.BytesIO()
    Image.new("RGB", (1001, 1000)).save(file, "PNG")
    (wide,) = server.score(file.getvalue()).json()["files"]
    assert "pixels" in wide["scores"][0]["refused"]


def test_a_body_that_trickles_is_given_up(start, pictures):
    server = start(seconds=2)
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port)) as slow:
        slow.sendall(head("multipart/form-data; boundary=b", 9999) + b"--b")
        slow.settimeout(20)
        assert b"408" in slow.recv(100)
    assert server.score(pictures[0]).status_code == 200


def test_a_key_is_asked_for_where_there_is_one(start, pictures):
    server = start(key="sesame")
    for headers in (
        {},
        {"Authorization": "Bearer sesam"},
        {"Authorization": "sesame"},
        {"Authorization": "Bearer sésame".encode()},
    ):
        answer = server.score(pictures[0], headers=headers)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    assert server.score(pictures[0], headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert requests.get(f"{server.url}/healthz", timeout=20).status_code == 200


def test_not_ready_until_the_models_have_scored(start, pictures):
    server = start(ready=False)
    assert requests.get(f"{server.url}/readyz", timeout=20).status_code == 503
    assert server.score(pictures[0]).status_code == 503
    assert requests.get(f"{server.url}/healthz", timeout=20).text == "ok\n"


class Slow:
    """A model that waits before it scores."""

    def __init__(self, judge: Judge, gate: threading.Event) -> None:
        self.judge, self.gate = judge, gate

    def __getattr__(self, name):
        return getattr(self.judge, name)

    def predict_many(self, items):
        self.gate.wait(30)
        return self.judge.predict_many(items)


def test_a_full_queue_says_when_to_come_again(start, judges, pictures):
    gate = threading.Event()
    gate.set()
    server = start(own={"slow": Slow(next(iter(judges.values())), gate)}, images=4, requests=100)
    gate.clear()
    with ThreadPoolExecutor(12) as callers:
        first = callers.submit(server.score, pictures[0])
        while server.app.state.nullscope.under_way < 1 or server.scorer.waiting:
            time.sleep(0.01)
        rest = [callers.submit(server.score, *pictures[:2]) for _ in range(8)]
        deadline = time.monotonic() + 30
        while 'status="429"} 6' not in server.app.state.nullscope.counters.text(0) and time.monotonic() < deadline:
            time.sleep(0.02)
        gate.set()
        answers = [one.result() for one in [first, *rest]]
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) == 3 and codes.count(429) == 6, "one under way, two times two in the queue"
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429)


def test_images_that_wait_too_long_are_given_up_and_not_scored(start, judges, pictures):
    gate = threading.Event()
    gate.set()
    server = start(own={"slow": Slow(next(iter(judges.values())), gate)}, seconds=2)
    gate.clear()
    assert server.score(pictures[0]).status_code == 504
    gate.set()
    assert server.score(pictures[0]).status_code == 200


class Fragile:
    """A model with a fault: one image breaks it."""

    def __init__(self, judge: Judge, poison: bytes) -> None:
        self.judge, self.poison = judge, poison

    def __getattr__(self, name):
        return getattr(self.judge, name)

    def predict_many(self, items):
        if self.poison in items:
            raise RuntimeError("a secret of the image")
        return self.judge.predict_many(items)


def test_an_image_that_breaks_a_model_takes_no_other_down(start, judges, pictures, caplog):
    judge = next(iter(judges.values()))
    server = start(own={"fragile": Fragile(judge, pictures[1])})
    with caplog.at_level(logging.INFO):
        found = server.score(*pictures[:3]).json()["files"]
    assert [row["scores"][0]["logit"] for row in found] == [
        judge.predict(pictures[0]).logit,
        None,
        judge.predict(pictures[2]).logit,
    ]
    assert "the server failed on this image" in found[1]["scores"][0]["refused"]
    assert "RuntimeError" in caplog.text and "secret" not in caplog.text


def test_many_callers_good_and_bad_have_what_is_theirs(server, judges, pictures, tmp_path, monkeypatch, caplog):
    """Eight callers at once; a fifth of the files are bad. Batches are shared, logits are not."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = [[judge.predict(data).logit for judge in judges.values()] for data in pictures]
    bad = [b"", b"\x89PNG\r\n\x1a\n", pictures[0][:200], b"<svg/>" * 100, os.urandom(5000)]

    def ask(number: int) -> None:
        at = number % len(pictures)
        names = [("a secret name.png", pictures[at]), ("bad.png", bad[number % len(bad)])][: 1 + (number % 5 == 0)]
        while (answer := server.score(*names)).status_code == 429:
            time.sleep(0.05)
        first, *second = answer.json()["files"]
        assert [own["logit"] for own in first["scores"]] == expected[at]
        assert all(own["refused"] for row in second for own in row["scores"])

    with ThreadPoolExecutor(8) as callers, caplog.at_level(logging.DEBUG):
        list(callers.map(ask, range(120)))
    assert "secret" not in caplog.text and not list(tmp_path.iterdir()), "nothing is logged, nothing is written"
    text = requests.get(f"{server.url}/metrics", timeout=20).text
    good = sum(
        int(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith('nullscope_images_total{model="clip_lora-0"') and "refused" not in line
    )
    assert good == 120 and 'model="clip_lora-0",answer="refused"} 24' in text and "nullscope_waiting_images 0" in text


def test_callers_that_go_away_leave_nothing_behind(server, pictures):
    port = urlsplit(server.url).port
    for size in (10, 500):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as gone:
                body = requests.Request("POST", server.url, files={"files": pictures[0]}).prepare()
                gone.sendall(head(body.headers["Content-Type"], len(body.body)) + body.body[:size])
    deadline, counted = time.monotonic() + 10, 0
    while counted < 10 and time.monotonic() < deadline:
        text = requests.get(f"{server.url}/metrics", timeout=20).text
        counted = sum(int(count) for count in re.findall(r"requests_total\{.*\} (\d+)", text))
        time.sleep(0.05)
    assert (counted, server.app.state.nullscope.under_way) == (10, 0)
    assert server.score(pictures[0]).status_code == 200


def test_the_interface_is_described_and_nothing_comes_from_elsewhere(server):
    paths = requests.get(f"{server.url}/openapi.json", timeout=20).json()["paths"]
    assert {"/v1/score", "/v1/explain", "/v1/models", "/healthz", "/readyz", "/metrics"} == set(paths)
    for path in ("/", "/docs", "/page.js", "/page.css", "/docs.js"):
        answer = requests.get(server.url + path, timeout=20)
        assert answer.status_code == 200 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "://" not in answer.text.replace("http://127.0.0.1:8000/v1/score", ""), "no address of another server"
    models = requests.get(f"{server.url}/v1/models", timeout=20).json()
    assert [(model["false_alarms"]["reals"], model["rendered"]) for model in models] == [(200, False)] * 2
    described = requests.get(f"{server.url}/openapi.json", timeout=20).json()["paths"]
    assert all(len(route.get("description", "")) > 20 for methods in described.values() for route in methods.values())


def test_an_explanation_is_the_difference_that_each_part_makes(server, judges, pictures):
    judge = judges["clip_lora-0"]
    asked = f"{server.url}/v1/explain"
    found = requests.post(asked, params={"model": "clip_lora-0"}, files={"files": pictures[1]}, timeout=60).json()
    assert (found["rows"], found["columns"]) == (judge.patches.grid, judge.patches.grid)
    assert found["logit"] == judge.predict(pictures[1]).logit and len(found["changes"]) == judge.patches.cells
    assert found["picture"].startswith("data:image/png;base64,")
    assert requests.post(asked, params={"model": "x"}, files={"files": pictures[1]}, timeout=60).status_code == 400
    refused = requests.post(asked, params={"model": "clip_lora-0"}, files={"files": b"none"}, timeout=60)
    assert refused.status_code == 422 and "not an image" in refused.json()["error"]
