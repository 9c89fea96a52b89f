"""One thread that owns the models and scores what waits, images of several callers together.

No logit depends on its company (`nullscope.scoring`), so batches are whatever is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nullscope.prediction import CHUNK, Judge
from nullscope.serving.limits import Declined
from nullscope.verdicts import Verdict

LOG = logging.getLogger("nullscope.serve")
CALLS = 4  # explanations that wait: each is some fifty images' work
T = TypeVar("T")
BROKEN = "the server failed on this image; the other images of the request are not affected"


@dataclass(eq=False)
class Job:
    """One image on its way: its bytes, and a verdict by every model once ``done``."""

    data: bytes
    done: Future[dict[str, Verdict]] = field(default_factory=Future)


class Scorer:
    """Scores images one batch after the other; its queue is bounded."""

    def __init__(self, judges: Mapping[str, Judge], capacity: int) -> None:
        """``judges``: the models by name, in the order of the answers; ``capacity``: images that may wait."""
        self.judges, self.capacity = judges, capacity
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._seconds = 0.1  # per image, the last that was measured
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return len(self._waiting)

    def submit(self, images: Sequence[bytes]) -> list[Job]:
        """Queue the images of a request, all or none. Raises `Declined` where they find no place, or the server is closing."""
        jobs = [Job(data) for data in images]
        with self._change:
            if self._closed:
                raise Declined(503, "the server is shutting down")
            # A request alone is taken whatever its size: otherwise it would never be.
            if self._waiting and len(self._waiting) + len(jobs) > self.capacity:
                seconds = max(1, round(len(self._waiting) * self._seconds))
                raise Declined(429, f"{len(self._waiting)} images wait already; try again in {seconds} s", seconds)
            self._waiting.extend(jobs)
            self._change.notify()
        return jobs

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Do some other work with the models between two batches. Raises `Declined` where too much of it waits."""
        future: Future[T] = Future()
        with self._change:
            if self._closed or len(self._calls) >= CALLS:
                raise Declined(503 if self._closed else 429, "the server is busy with explanations; try again later", 10)
            self._calls.append((work, future))
            self._change.notify()
        return future

    def close(self) -> None:
        """Finish what waits, take nothing more, and end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._calls or self._closed)
                if not self._waiting and not self._calls:
                    return
                call = self._calls.popleft() if self._calls else None
                batch = [self._waiting.popleft() for _ in range(min(CHUNK, len(self._waiting)))]
            if call:
                _answer(*call)
            batch = [job for job in batch if job.done.set_running_or_notify_cancel()]
            start = time.monotonic()
            self._score(batch)
            if batch:
                self._seconds = (time.monotonic() - start) / len(batch)

    def _score(self, batch: list[Job]) -> None:
        """Give every image of a batch its verdicts. Where a batch fails as a whole, its images are scored one by one."""
        try:
            found = {name: list(judge.predict_many([job.data for job in batch])) for name, judge in self.judges.items()}
        except Exception as error:
            if len(batch) == 1:
                LOG.error("an image failed: %s", type(error).__name__)  # not its text, which may say something of the image
                batch[0].done.set_result({name: Verdict("bytes", refused=BROKEN) for name in self.judges})
                return
            for job in batch:
                self._score([job])
            return
        for at, job in enumerate(batch):
            job.done.set_result({name: verdicts[at] for name, verdicts in found.items()})


def _answer(work: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
