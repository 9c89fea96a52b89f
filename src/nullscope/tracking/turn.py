"""One publisher at a time: on one machine by a lock on a file, on several by a claim that the server keeps.

A registered model's name is the only thing in MLflow that exactly one of several clients can create. It is there while somebody
publishes, and touched every `BEAT_S`. Whoever sees it untouched for `STALE_S` by its own clock takes it for that of a process
that was killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nullscope.tracking.address import say, sqlite_file
from nullscope.tracking.store import Store, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

BEAT_S, STALE_S = 5.0, 40.0  # the second is more than a request with its retries takes
PAUSE_S = 1.0  # between two looks at somebody else's claim
MEANING = "Somebody publishes runs at this moment. `stages/track.py` deletes this when it is done."


@contextmanager
def turn(store: Store) -> Iterator[None]:
    """Hold the turn to publish to ``store``, waiting for it."""
    with locked(store.lock):
        if sqlite_file(store.client.tracking_uri):
            yield  # all who can reach the file share the lock beside it
            return
        name = f"nullscope-publishing-{store.experiment_id}"
        _claim(store.client, name)
        over = threading.Event()
        beats = threading.Thread(target=_beat, args=(store.client, name, over), name="mlflow-turn", daemon=True)
        beats.start()
        try:
            yield
        finally:
            over.set()
            beats.join()
            _drop(store.client, name)


def _claim(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    seen, since, said = None, time.monotonic(), False
    while True:
        try:
            client.create_registered_model(name, description=MEANING)
            return
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if not said:
            say("another machine is publishing to this server; waiting for it")
            said = True
        beat = _last_beat(client, name)
        if beat != seen:
            seen, since = beat, time.monotonic()
        elif time.monotonic() - since > STALE_S and _last_beat(client, name) == seen:
            _drop(client, name)
            continue
        time.sleep(PAUSE_S)


def _last_beat(client: MlflowClient, name: str) -> int | None:
    """Return when a claim was touched, by the server's clock; None where it is gone."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name).last_updated_timestamp
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _beat(client: MlflowClient, name: str, over: threading.Event) -> None:
    from mlflow.exceptions import MlflowException

    while not over.wait(BEAT_S):
        try:
            client.update_registered_model(name, description=MEANING)
        except MlflowException:
            continue  # a server that is away: whoever publishes will say it


def _drop(client: MlflowClient, name: str) -> None:
    """Delete a claim. Where that fails, others take it for stale after `STALE_S`."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model(name)
    except MlflowException:
        return
