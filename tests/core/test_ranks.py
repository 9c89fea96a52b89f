"""Ranks, workers and devices come from the environment, change no result, and are checked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from nullscope.core import ranks

SCRIPT = """
import sys
from pathlib import Path
import pyarrow as pa
from nullscope.core import ranks
from nullscope.tables.parts import in_parts
from nullscope.tables.parquet import write_batches
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_stage_that_runs_alone_does_so_under_a_users_own_launcher(tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom nullscope.core import ranks\n"
        "def main(): Path(sys.argv[1], str(ranks.rank())).touch()\nranks.launch(main, alone=True)\n"
    )
    (tmp_path / "ran").mkdir()
    elastic = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *elastic, str(script), str(tmp_path / "ran")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "ran").iterdir()] == ["0"]


def test_ranks_of_a_machine_share_its_cpus(monkeypatch):
    monkeypatch.delenv("NULLSCOPE_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7))
    assert ranks.workers() == 7
    for count, workers in (("2", 3), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
        assert ranks.workers() == workers
    monkeypatch.setenv("NULLSCOPE_WORKERS", "5")
    assert ranks.workers() == 5


@pytest.mark.parametrize(("value", "expected"), [("", False), ("0", False), ("1", True)])
def test_compiling_is_off_unless_asked_for(monkeypatch, value, expected):
    monkeypatch.setenv("NULLSCOPE_COMPILE", value)
    assert ranks.compiles() is expected


def test_a_bad_switch_is_named(monkeypatch):
    monkeypatch.setenv("NULLSCOPE_COMPILE", "yes")
    with pytest.raises(ValueError, match="NULLSCOPE_COMPILE: expected 0 or 1, found 'yes'"):
        ranks.compiles()


@pytest.mark.slow
def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    """Whatever its pool was started by: nothing waits for work for ever after a SIGKILL."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, os, signal, sys, time\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from nullscope.core import ranks\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(2, multiprocessing.get_context(sys.argv[1]), ranks.end_with_parent)\n"
        "    print(*{pool.submit(os.getpid).result() for _ in range(9)}, flush=True)\n"
        "    pool.submit(time.sleep, 60)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for method in ("fork", "spawn", "forkserver"):
        done = subprocess.run([sys.executable, str(script), method], capture_output=True, text=True, cwd=ROOT)
        workers = [Path(f"/proc/{pid}/cmdline") for pid in done.stdout.split()]
        assert done.returncode == -signal.SIGKILL and workers
        until = time.monotonic() + 10
        while any(worker.exists() for worker in workers):
            assert time.monotonic() < until, f"{method}: {workers}"
            time.sleep(0.05)
