"""Stages killed at any moment, by SIGKILL and without warning: what is left is whole, and a second run ends with the same bytes.

By hand and not through DVC, which would remove the outputs of a stage before it runs again: here that is a case among others.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from test_pipeline import copy_project

pytestmark = pytest.mark.e2e

SETTINGS = [
    "detectors=[clip_lora]",  # it needs no captions: the short form makes none
    "detectors.clip_lora.epochs=3",
    "detectors.clip_lora.batch_size=8",
    "dataset.world.train_reals=32",
    "dataset.world.train_fakes_per_generator=16",
    "dataset.world.val_reals=8",
    "dataset.world.val_fakes_per_generator=4",
    "dataset.world.test_reals=12",
    "dataset.world.test_fakes_per_generator=3",
    "shard.samples=8",
]
RUN = "clip_lora-0"
# In the order of the pipeline: the command, and all that it writes.
STAGES: dict[str, tuple[list[str], list[str]]] = {
    "world": ([], ["data/world"]),
    "encoders": ([], ["data/encoders"]),
    "index": ([], ["data/index.parquet", "data/rejects.csv", "metrics/index.json"]),
    "caption": ([], ["data/captions.parquet"]),
    "shard": ([], ["data/shards"]),
    "audit": ([], ["metrics/audit.json"]),
    "embed": ([], ["data/text"]),
    "train": (["clip_lora", "0"], [f"models/{RUN}"]),
    "score": ([RUN], [f"scores/{RUN}.parquet", f"data/features/{RUN}.parquet"]),
    "evaluate": ([RUN], [f"metrics/{RUN}.json", "data/evaluated"]),
    "report": ([], ["reports", "metrics/summary.json"]),
}
SHARDS_ONLY = {"world", "encoders", "index", "shard", "train"}  # what these need of each other
ENVIRONMENT = {"NULLSCOPE_TRACKING": "off", "NULLSCOPE_WORKERS": "2", "NULLSCOPE_CHECKPOINT_S": "0.1", "OMP_NUM_THREADS": "1"}


class Project:
    """A small project whose stages are run on demand, each once undisturbed before it is killed."""

    def __init__(self, root: Path) -> None:
        self.root = copy_project(root)
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            composed = compose("config", overrides=SETTINGS)
        OmegaConf.save(composed, self.root / "params.yaml", resolve=True)
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}

    def start(self, stage: str, **environment: str) -> subprocess.Popen:
        """Start a stage in a session of its own, so that all its processes can be found."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NULLSCOPE_")}
        clean |= {**ENVIRONMENT, **environment, "PYTHONPATH": str(self.root / "src")}
        command = [sys.executable, f"stages/{stage}.py", *STAGES[stage][0]]
        with open(self.root / f".{stage}.log", "w") as log:
            return subprocess.Popen(command, cwd=self.root, env=clean, stdout=log, stderr=log, start_new_session=True)

    def finish(self, stage: str, process: subprocess.Popen) -> None:
        assert process.wait(timeout=300) == 0, (self.root / f".{stage}.log").read_text()[-3000:]

    def prepare(self, stage: str) -> None:
        """Run all stages up to this one, where that has not been done."""
        for name in STAGES:
            if name not in self.expected and (name in SHARDS_ONLY or stage not in SHARDS_ONLY):
                began = time.monotonic()
                self.finish(name, self.start(name))
                self.seconds[name], self.expected[name] = time.monotonic() - began, self.outputs(name)
                assert self.expected[name]
            if name == stage:
                return

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


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("killed"))


def check_killed(project: Project, stage: str, share: float, *, kept: bool) -> None:
    """Kill a stage after this share of its time, look at what is left, run it again.

    ``kept``: with the outputs of an earlier run in their places, which DVC would have removed.
    """
    project.prepare(stage)
    expected = project.expected[stage]
    if not kept:
        project.remove(stage)
    process = project.start(stage)
    time.sleep(share * project.seconds[stage])
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


@pytest.mark.parametrize("stage", ["shard", "train"])
def test_a_killed_stage_ends_with_the_same_bytes_when_run_again(project, stage):
    check_killed(project, stage, random.Random(stage).uniform(0.6, 0.95), kept=False)


def test_a_killed_rank_is_started_again_and_the_bytes_are_the_same(project):
    """By our own launcher: nobody runs anything a second time."""
    project.prepare("shard")
    project.remove("shard")
    launcher = project.start("shard", NULLSCOPE_RANKS="2")
    victim = rank_processes(launcher.pid)[1]
    time.sleep(0.5 * project.seconds["shard"])
    os.kill(victim, signal.SIGKILL)
    project.finish("shard", launcher)
    assert project.outputs("shard") == project.expected["shard"]
    assert_all_end(launcher.pid)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("stage", [name for name in STAGES if name not in ("world", "encoders")])
def test_killed_at_many_moments(request, project, stage, number):
    """At the beginning, in the middle, at the end; every other time over the outputs of an earlier run."""
    if not (request.config.option.markexpr or request.config.option.keyword):
        pytest.skip("ten minutes; run with `-m slow`")
    rng = random.Random(f"{stage}/{number}")
    check_killed(project, stage, (number + rng.random()) / 4, kept=number % 2 == 1)
