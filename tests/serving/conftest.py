"""A server in this process, with two models behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import requests
import uvicorn
from conftest import conf_of, noise_image, save_model
from servers import free_port

from nullscope import detectors
from nullscope.model_facts import Validation, write_validation
from nullscope.serving.app import create_app
from nullscope.serving.limits import Limits
from nullscope.serving.server import load_judges, warm_up

NAMES = ("clip_lora", "linear_probe")
LIMITS = Limits(bytes=2**20, files=4, pixels=1_000_000, requests=8, images=64, seconds=20)


@dataclass(frozen=True)
class Running:
    """A server's address, and what lies behind it."""

    url: str
    app: object

    def score(self, *files: bytes | tuple[str, bytes], **more: object) -> requests.Response:
        """Ask for the scores of files."""
        named = [file if isinstance(file, tuple) else (f"{at}.png", file) for at, file in enumerate(files)]
        return requests.post(f"{self.url}/v1/score", files=[("files", one) for one in named], timeout=60, **more)

    @property
    def scorer(self):
        return self.app.state.nullscope.scorer


@pytest.fixture(scope="session")
def folders(small, tmp_path_factory) -> list[Path]:
    found = []
    for name in NAMES:
        detector = detectors.build(name, conf_of(name), small.context, seed=0)
        out = tmp_path_factory.mktemp("served") / f"{name}-0"
        save_model(out, detector, name, conf_of(name), small.context)
        write_validation(out, Validation(reals="a", fakes="b", real=np.linspace(-1, 0.05, 200).tolist(), fake=[0.1] * 40))
        found.append(out)
    return found


@pytest.fixture(scope="session")
def judges(folders):
    return load_judges(folders, LIMITS, anyway=True, fpr=None, band=True)


@pytest.fixture
def start(judges) -> Iterator[Callable[..., Running]]:
    """Starts servers; all end with the test."""
    ends: list[Callable[[], None]] = []

    def started(key: str = "", own=None, ready: bool = True, **limits: object) -> Running:
        app = create_app(own or judges, replace(LIMITS, **limits), key)
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        ends.append(lambda: (setattr(server, "should_exit", True), thread.join(20), app.state.nullscope.scorer.close()))
        while not server.started:
            time.sleep(0.01)
        if ready:
            warm_up(app)
        return Running(f"http://127.0.0.1:{port}", app)

    yield started
    for end in ends:
        end()


@pytest.fixture
def server(start) -> Running:
    return start()


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    return [noise_image(seed, seed % 2) for seed in range(12)]
