"""The command itself, as a process: told to end it finishes what is under way, killed it can be started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from servers import free_port

from nullscope.cli import main

pytestmark = pytest.mark.slow
Started = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(folders) -> Iterator[Started]:
    processes = []

    def started(port: int, **environment: str) -> tuple[subprocess.Popen[str], str]:
        script = "import sys; from nullscope.cli import main; sys.argv = ['nullscope', *sys.argv[1:]]; main()"
        command = [sys.executable, "-c", script, "serve", "--model", str(folders[0]), "--port", str(port), "--anyway"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                if requests.get(f"{url}/readyz", timeout=2).status_code == 200:
                    return process, url
            time.sleep(0.1)
        raise AssertionError(process.stderr.read())

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def test_told_to_end_it_answers_who_has_asked_and_killed_it_starts_again(start, pictures):
    port = free_port()
    process, url = start(port)

    def ask(_: int) -> int:
        return requests.post(f"{url}/v1/score", files=[("files", data) for data in pictures], timeout=60).status_code

    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(ask, at) for at in range(8)]
        while "nullscope_waiting_images 0" in requests.get(f"{url}/metrics", timeout=20).text:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert [one.result() for one in asked] == [200] * 8
    assert process.wait(30) in (0, -signal.SIGTERM)
    log = process.stderr.read()
    assert "ready" in log and log.count("200 in") == 8 and ".png" not in log

    process, url = start(port)
    with ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(ask, at) for at in range(4)]
        time.sleep(0.1)
        process.kill()
        assert all(one.exception() or one.result() == 200 for one in asked)
    process.wait(30)
    _, url = start(port)
    assert ask(0) == 200


def test_the_key_comes_from_the_environment(start, pictures):
    _, url = start(free_port(), NULLSCOPE_API_KEY="sesame")
    assert requests.post(f"{url}/v1/score", files={"files": pictures[0]}, timeout=20).status_code == 401


def test_what_is_no_model_is_one_line(tmp_path: Path, folders):
    done = CliRunner().invoke(main, ["serve", "--model", str(tmp_path)])
    assert done.exit_code == 2 and "is not a trained detector" in done.output and done.output.count("\n") == 1
    twice = CliRunner().invoke(main, ["serve", "--model", str(folders[0]), "--model", str(folders[0])])
    assert twice.exit_code == 2 and "another model is called clip_lora-0" in twice.output
