"""A training as it runs: its curves appear in MLflow meanwhile, and nothing that happens in MLflow can stop or slow it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nullscope.core import ranks, runs
from nullscope.core.files import content_sha256, replacing
from nullscope.tracking.address import project_root, say, shown, switched_on
from nullscope.tracking.facts import (
    CLONE,
    CURRENT,
    CURVE,
    MODEL,
    TRAINING,
    flat_params,
    machine_tags,
    model_files,
    origin_tags,
    training_key,
)
from nullscope.tracking.store import Store, open_store, patience
from nullscope.tracking.system import System

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

BATCH_S = 2.0  # between two batches, however many steps they hold
RETRY_S = 30.0  # between two attempts at a store that failed
FAREWELL_S = 12.0  # how long the end of a training waits for the last batch: one request, its retry, and a little


@contextmanager
def live(detector: str, seed: int, params: Mapping[str, Any], inputs: str = "") -> Iterator[Recorder]:
    """Record the training of ``detector`` with ``seed`` as a run while it runs.

    ``params`` is what ``detector.json`` will hold, ``inputs`` any text that stands for the data. The same training again,
    after one that did not finish, continues the unfinished run. Yields a `Recorder` that does nothing where tracking is
    off, on ranks above 0, and where the store fails: the model's folder is the record, and `publish` completes the run from it.
    Call `check_store` before, which raises on a store that cannot work at all.
    """
    if not switched_on() or ranks.rank() > 0:
        yield Recorder()
        return
    with patience(retries=1, timeout_s=5):
        recorder = _begin(detector, seed, params, inputs)
        status = "FAILED"
        try:
            yield recorder
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            recorder.close(status)


class Recorder:
    """Takes the values of each step, and drops them: for a training that is not tracked. `_Sender` sends them."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of one step, such as losses, or ``val_ap`` at the end of an epoch; returns within microseconds."""

    def finish(self, model: Path) -> None:
        """Say which folder the training ended in, so that `publish` recognises the run."""

    def close(self, status: str) -> None:
        """Send what is left and end the run with MLflow's ``status``."""


class _Sender(Recorder):
    """Sends values in batches from a thread of its own. What could not be sent is kept for the next attempt."""

    def __init__(self, store: Store, run_id: str, sent: set[tuple[str, int]]) -> None:
        self._store, self._run_id, self._sent = store, run_id, sent
        self._system = System()
        self._pending: list[tuple[int, int, dict[str, float]]] = []  # appended to by one thread, shortened by the other
        self._tags: dict[str, str] = {}
        self._status = ""
        self._over = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._send, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._pending.append((step, time.time_ns() // 1_000_000, dict(values)))

    def finish(self, model: Path) -> None:
        self._tags[MODEL] = content_sha256(model_files(model), model)

    def close(self, status: str) -> None:
        self._status = status
        self._over.set()
        self._thread.join(FAREWELL_S)
        if self._thread.is_alive():
            self._warn(f"no answer within {FAREWELL_S:.0f} s")

    def _send(self) -> None:
        pause = BATCH_S
        while not self._over.wait(pause):
            pause = BATCH_S if self._attempt(status="") else RETRY_S
        self._attempt(self._status)

    def _attempt(self, status: str) -> bool:
        """Send everything there is, and end the run if there is a ``status``. Returns whether the store took it."""
        steps = self._pending[:]
        try:
            metrics = [*self._metrics(steps), *self._system.sample()]
            self._store.client.log_batch(self._run_id, metrics=metrics, tags=run_tags(self._tags))
            if status:
                self._store.client.set_terminated(self._run_id, status=status)
        except Exception as error:  # whatever it is, the training is worth more
            self._warn(" ".join(shown(str(error)).split())[:200])
            return False
        del self._pending[: len(steps)]
        return True

    def _metrics(self, steps: list[tuple[int, int, dict[str, float]]]) -> list[Metric]:
        from mlflow.entities import Metric

        return [
            Metric(CURVE + name, float(value), time_ms, step)
            for step, time_ms, values in steps
            for name, value in values.items()
            if (CURVE + name, step) not in self._sent
        ]

    def _warn(self, cause: str) -> None:
        if not self._warned:
            self._warned = True
            say(f"MLflow failed ({cause}); the training goes on, and `python stages/track.py` completes the run afterwards")


def run_tags(tags: Mapping[str, str]) -> list[Any]:
    """Return MLflow's objects for ``tags``."""
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def logged_steps(store: Store, run: Run) -> set[tuple[str, int]]:
    """Return the name and the step of every point that the curves of ``run`` already have."""
    names = [name for name in run.data.metrics if name.startswith(CURVE)]
    return {(name, point.step) for name in names for point in store.client.get_metric_history(run.info.run_id, name)}


def clone_id(root: Path) -> str:
    """Return the name of a project's folder, drawn when it is first asked for; machines that share the folder share it."""
    file = root / ".nullscope" / "clone"
    if not file.is_file():
        with replacing(file) as partial:
            partial.write_text(uuid.uuid4().hex)
    return file.read_text().strip()


def _begin(detector: str, seed: int, params: Mapping[str, Any], inputs: str) -> Recorder:
    from mlflow.entities import Param

    try:
        store = open_store(Path())
        key = training_key(detector, seed, params, inputs)
        clone = clone_id(project_root(Path()))
        run = _unfinished(store, key, clone)
        if run is not None:
            store.client.update_run(run.info.run_id, status="RUNNING")
            return _Sender(store, run.info.run_id, logged_steps(store, run))
        trained = runs.Run(detector, seed)
        tags = origin_tags(Path(), trained) | machine_tags() | {TRAINING: key, CLONE: clone, CURRENT: "false"}
        run = store.client.create_run(store.experiment_id, run_name=trained.name, tags=tags)
        store.client.log_batch(run.info.run_id, params=[Param(*item) for item in flat_params(params).items()])
        return _Sender(store, run.info.run_id, set())
    except Exception as error:  # `check_store` has already raised on what can be foreseen
        say(f"{error}; the training goes on, and `python stages/track.py` publishes it afterwards")
        return Recorder()


def _unfinished(store: Store, key: str, clone: str) -> Run | None:
    """Return the newest run of this training in this clone that has not finished: killed, failed, or left as running by a crash.

    In another clone the same training may run at this moment.
    """
    query = f"tags.`{TRAINING}` = '{key}' and tags.`{CLONE}` = '{clone}' and attributes.status != 'FINISHED'"
    found = store.client.search_runs([store.experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0] if found else None
