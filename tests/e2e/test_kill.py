"""Stages killed at any moment, by SIGKILL and without warning: what is left is whole, and a second run ends with the same bytes.

By hand and not through DVC, which would remove the outputs of a stage before it runs again: here that is a case among others.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from e2e.project import KILLED

pytestmark = pytest.mark.e2e

RUN = f"{KILLED}-0"
# In the order of the pipeline: the command, and all that it writes.
STAGES: dict[str, tuple[list[str], list[str]]] = {
    "index": ([], ["data/index.parquet", "data/rejects.csv", "metrics/index.json"]),
    "caption": ([], ["data/captions.parquet"]),
    "shard": ([], ["data/shards"]),
    "audit": ([], ["metrics/audit.json"]),
    "embed": ([], ["data/text"]),
    "train": ([KILLED, "0"], [f"models/{RUN}"]),
    "score": ([RUN], [f"scores/{RUN}.parquet", f"data/features/{RUN}.parquet"]),
    "evaluate": ([RUN], [f"metrics/{RUN}.json", f"data/evaluated/{RUN}.json", f"data/evaluated/{RUN}.parquet"]),
    "report": ([], ["reports", "metrics/summary.json"]),
}
ENVIRONMENT = {"NULLSCOPE_TRACKING": "off", "NULLSCOPE_WORKERS": "2", "NULLSCOPE_CHECKPOINT_S": "0"}


class Project:
    """A clone of the small project. Its stages are run by hand and killed; what they are to write is what DVC made them write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.expected = {stage: self.outputs(stage) for stage in STAGES}
        self.seconds: dict[str, float] = {}  # of an undisturbed run of a stage
        assert all(self.expected.values())

    def start(self, stage: str, **environment: str) -> subprocess.Popen:
        """Start a stage in a session of its own, so that all its processes can be found."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NULLSCOPE_")}
        clean |= {**ENVIRONMENT, **environment, "PYTHONPATH": str(self.root / "src")}
        command = [sys.executable, f"stages/{stage}.py", *STAGES[stage][0]]
        with open(self.root / f".{stage}.log", "w") as log:
            return subprocess.Popen(command, cwd=self.root, env=clean, stdout=log, stderr=log, start_new_session=True)

    def finish(self, stage: str, process: subprocess.Popen) -> None:
        assert process.wait(timeout=300) == 0, (self.root / f".{stage}.log").read_text()[-3000:]

    def time(self, stage: str) -> float:
        """Return the seconds of an undisturbed run of the stage."""
        if stage not in self.seconds:
            began = time.monotonic()
            self.finish(stage, self.start(stage))
            self.seconds[stage] = time.monotonic() - began
            assert self.outputs(stage) == self.expected[stage]
        return self.seconds[stage]

    def outputs(self, stage: str) -> dict[str, str]:
        """The SHA-256 of every file that lies where a stage writes, hidden ones included."""
        files: list[Path] = []
        for out in STAGES[stage][1]:
            path = self.root / out
            files += [path, *path.parent.glob(f".{path.name}.*")] if path.suffix else path.rglob("*")
        found = sorted(file for file in set(files) if file.is_file())
        return {file.relative_to(self.root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}

    def remove(self, stage: str) -> None:
        for name in self.expected[stage]:
            (self.root / name).unlink(missing_ok=True)


def processes_of(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended meanwhile
            continue
        if int(owner) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def assert_all_end(session: int, within_s: float = 15.0) -> None:
    """No worker outlives the stage that was killed."""
    until = time.monotonic() + within_s
    while left := processes_of(session):
        assert time.monotonic() < until, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
        time.sleep(0.1)


@pytest.fixture
def killed(clone) -> Project:
    return Project(clone)


@pytest.fixture(scope="module")
def killed_often(project, tmp_path_factory) -> Project:
    """The clone of the tests that kill at many moments, which time every stage once."""
    return Project(Path(shutil.copytree(project, tmp_path_factory.mktemp("killed") / "clone", symlinks=True)))


def finished_tars(root: Path) -> int:
    return len(list(root.glob(".nullscope/shard/*/*/*/*.tar")))


def finished_steps(root: Path) -> int:
    """Steps of the training that the checkpoint holds."""
    for file in root.glob(".nullscope/train/*/progress.json"):
        with suppress(OSError):  # it is being replaced
            return len(json.loads(file.read_text())["history"])
    return 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    """Wait until the condition holds while the process runs."""
    until = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < until, f"it never came so far: {log.read_text()[-2000:]}"
        time.sleep(0.002)


def check_killed(project: Project, stage: str, wait: Callable[[subprocess.Popen], None], *, kept: bool) -> None:
    """Kill a stage when ``wait`` returns, look at what is left, run it again.

    ``kept``: with the outputs of an earlier run in their places, which DVC would have removed.
    """
    expected = project.expected[stage]
    if not kept:
        project.remove(stage)
    process = project.start(stage)
    wait(process)
    process.kill()  # its workers are not told
    process.wait()
    left = {name: digest for name, digest in project.outputs(stage).items() if not Path(name).name.endswith(".partial")}
    assert left.items() <= expected.items(), "a file that is no whole one"
    project.finish(stage, project.start(stage))
    assert project.outputs(stage) == expected
    assert_all_end(process.pid)


def rank_processes(launcher: int) -> dict[int, int]:
    """The processes of the ranks by rank, once all of two have been started."""
    found: dict[int, int] = {}
    while len(found) < 2:
        time.sleep(0.05)
        for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            for rank in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                variables = Path(f"/proc/{rank}/environ").read_bytes().split(b"\0")
                number = next((each[5:] for each in variables if each.startswith(b"RANK=")), None)
                if number is not None:
                    found[int(number)] = int(rank)
    return found


@pytest.mark.parametrize(("stage", "finished", "pieces"), [("shard", finished_tars, 12), ("train", finished_steps, 24)])
def test_a_killed_stage_ends_with_the_same_bytes_when_run_again(killed, stage, finished, pieces):
    """Killed in the middle of its work, with some of it finished. Nothing of the work is lost: the second run goes on from it."""
    some = random.Random(stage).randrange(1, pieces * 2 // 3)
    log = killed.root / f".{stage}.log"
    check_killed(killed, stage, lambda process: wait_for(lambda: finished(killed.root) >= some, process, log), kept=False)


def test_a_killed_rank_is_started_again_and_the_bytes_are_the_same(killed):
    """By our own launcher: nobody runs anything a second time."""
    killed.remove("shard")
    launcher = killed.start("shard", NULLSCOPE_RANKS="2")
    victim = rank_processes(launcher.pid)[1]
    wait_for(lambda: finished_tars(killed.root) > 0, launcher, killed.root / ".shard.log")
    os.kill(victim, signal.SIGKILL)
    killed.finish("shard", launcher)
    assert killed.outputs("shard") == killed.expected["shard"]
    assert_all_end(launcher.pid)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_many_moments(request, killed_often, stage, number):
    """At the beginning, in the middle, at the end; every other time over the outputs of an earlier run."""
    if "slow" not in request.config.option.markexpr and not request.config.option.keyword:
        pytest.skip("ten minutes; run with `-m slow`")
    share = (number + random.Random(f"{stage}/{number}").random()) / 4
    seconds = share * killed_often.time(stage)
    check_killed(killed_often, stage, lambda _: time.sleep(seconds), kept=number % 2 == 1)
