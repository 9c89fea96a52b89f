"""A hub on this machine, and the command line pointed at it."""

import random

import pytest
from click.testing import CliRunner
from fetching.hub_server import Hub, serving

from nullscope.cli import main

AIGIBENCH = "HorizonTEL/AIGIBench"
CHUNK = 4096  # bytes that the client writes at a time, here


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def hub(monkeypatch):
    """A hub with a small AIGIBench; the client asks it, and not the network."""
    import huggingface_hub
    from huggingface_hub import constants

    files = {
        "README.md": b"a card",
        "train/car.zip": noise(1, 50_000),
        "train/cat.zip": noise(2, 20_000),
        "train/sdv1.4.zip": noise(3, 30_000),
        "test/ProGAN.zip": noise(4, 10_000),
        "test/note.txt": b"not in LFS",
        "extra/car.zip": noise(5, 5_000),
    }
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(Hub({AIGIBENCH: files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def fetch(tmp_path):
    """Run `nullscope fetch` with ``--to`` a folder of the test."""

    def run(*arguments, to=tmp_path / "data"):
        return CliRunner().invoke(main, ["fetch", *map(str, arguments), "--to", str(to)])

    return run


def sentence(result) -> str:
    """What a failed run says: one line on standard error, status 2."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and result.stderr.rstrip().endswith(lines[0]), result.stderr
    return lines[0].removeprefix("Error: ")
