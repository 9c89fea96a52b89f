"""Pieces of work side by side."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from nullscope.core import lanes, launcher


@pytest.fixture
def two_cpus(monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: 2)


def test_results_are_in_the_order_of_the_pieces(two_cpus):
    def compute(piece: int) -> int:
        time.sleep(0.01 * (5 - piece))
        return piece**2

    assert lanes.each(compute, range(5)) == [0, 1, 4, 9, 16]
    assert lanes.each(compute, []) == []


def test_lanes_run_at_once_and_never_more_than_there_are_cpus(two_cpus):
    met, inside, most = threading.Barrier(2, timeout=10), [], []

    def compute(piece: int) -> None:
        inside.append(piece)
        most.append(len(inside))
        met.wait()  # no piece ends before another one is under way
        inside.remove(piece)

    lanes.each(compute, range(4))
    assert max(most) == 2


def test_one_cpu_needs_no_thread(monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: 1)
    assert lanes.each(lambda piece: threading.current_thread(), range(3)) == [threading.current_thread()] * 3


def test_what_a_piece_raises_is_raised(two_cpus):
    with pytest.raises(ZeroDivisionError):
        lanes.each(lambda piece: 1 // piece, [1, 0, 2])


def test_a_lane_has_as_many_of_torchs_threads_as_its_caller(two_cpus):
    """Otherwise a sum would be rounded by the number of the machine's CPUs."""
    assert lanes.each(lambda piece: torch.get_num_threads(), range(2)) == [torch.get_num_threads()] * 2


def test_ranks_share_the_cpus_of_a_machine(monkeypatch):
    monkeypatch.setattr(launcher.os, "sched_getaffinity", lambda pid: {*range(8)})
    assert launcher.cpus() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert launcher.cpus() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert launcher.cpus() == 1


def test_lanes_do_not_import_torch():
    code = "import sys; from nullscope.core import lanes; lanes.each(print, [1, 2]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
