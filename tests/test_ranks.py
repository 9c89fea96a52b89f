"""Ranks, workers and devices come from the environment, change no result, and are checked."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from nullscope import ranks

SCRIPT = """
import sys
from pathlib import Path
import pyarrow as pa
from nullscope import ranks
from nullscope.data.parts import in_parts
from nullscope.data.tables import write_batches
SCHEMA = pa.schema([pa.field("number", pa.int64()), pa.field("rank", pa.int64())])
out = Path(sys.argv[1])
def compute(pending):
    for number in pending:
        if out.with_suffix(".kill").exists() and number == 5:
            raise ValueError("killed")
        yield pa.table([[number * number], [0]], schema=SCHEMA)
def main():
    tables = in_parts(range(8), compute, SCHEMA, out.with_suffix(".parts"))
    if tables is not None:
        write_batches(out, (batch for table in tables for batch in table.to_batches()), SCHEMA)
    out.with_suffix(f".rank{ranks.rank()}").touch()
if __name__ == "__main__":
    ranks.launch(main)
"""


def run(tmp_path, name, **environment):
    script = tmp_path / "stage.py"
    script.write_text(SCRIPT)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NULLSCOPE_")}
    command = [sys.executable, str(script), str(tmp_path / f"{name}.parquet")]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, cwd=ROOT)


def test_two_ranks_write_the_bytes_of_one(tmp_path):
    assert run(tmp_path, "one").returncode == 0
    done = run(tmp_path, "two", NULLSCOPE_RANKS="2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.rank1").exists()  # there were two
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert not (tmp_path / "two.parts").exists()


def test_a_stopped_stage_keeps_its_finished_pieces_and_ends_with_the_same_bytes(tmp_path):
    assert run(tmp_path, "whole").returncode == 0
    (tmp_path / "resumed.kill").touch()
    stopped = run(tmp_path, "resumed")
    assert stopped.returncode == 1 and stopped.stderr.strip() == "error: killed"
    assert len(list((tmp_path / "resumed.parts").glob("*.parquet"))) == 5 and not (tmp_path / "resumed.parquet").exists()
    (tmp_path / "resumed.kill").unlink()
    assert run(tmp_path, "resumed").returncode == 0
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "resumed.parquet").read_bytes()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_bad_number_is_named(monkeypatch, value):
    monkeypatch.setenv("NULLSCOPE_WORKERS", value)
    with pytest.raises(ValueError, match=f"NULLSCOPE_WORKERS: expected a whole number of at least 1, found '{value}'"):
        ranks.workers()


@pytest.mark.parametrize(("value", "message"), [("gpu", "expected `cpu`, `cuda`"), ("cuda:99", "CUDA devices")])
def test_a_device_that_is_not_there_is_an_error(monkeypatch, value, message):
    monkeypatch.setenv("NULLSCOPE_DEVICE", value)
    with pytest.raises(ValueError, match=message):
        ranks.device()


def test_ranks_share_the_work_without_overlap(monkeypatch):
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        shares.append(list(ranks.mine(range(10))))
    assert sorted(item for share in shares for item in share) == list(range(10))
