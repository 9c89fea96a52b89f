"""From model folders to a running server."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from nullscope.prediction import Judge
from nullscope.serving.app import create_app
from nullscope.serving.limits import Limits

LOG = logging.getLogger("nullscope.serve")
FAREWELL_S = 30  # for requests that are under way when the server is told to end


def load_judges(folders: Sequence[Path], limits: Limits, *, anyway: bool, fpr: float | None, band: bool) -> dict[str, Judge]:
    """Return the models by the names of their folders. Raises `ValueError` if one is none, or two have one name."""
    judges: dict[str, Judge] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in judges:
            raise ValueError(f"{folder}: another model is called {name}; the answers would not tell them apart")
        judge = Judge(folder, anyway=anyway, fpr=fpr, band=band)
        judge.facts = judge.facts.model_copy(update={"max_pixels": min(judge.facts.max_pixels, limits.pixels)})
        judges[name] = judge
    return judges


def serve(judges: Mapping[str, Judge], host: str, port: int, limits: Limits, key: str) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way. Nothing of a request is logged but status and seconds."""
    _log_to_stderr()
    app = create_app(judges, limits, key)
    state = app.state.nullscope
    threading.Thread(target=warm_up, args=(app,), name="warm-up", daemon=True).start()
    LOG.info("http://%s:%d serves %s", host, port, ", ".join(judges))
    uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=FAREWELL_S)
    state.scorer.close()


def _log_to_stderr() -> None:
    """Write this server's lines, whatever libraries have made of the root logger."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def warm_up(app: object) -> None:
    """Score an image with every model, and only then be ready."""
    state = app.state.nullscope
    (job,) = state.scorer.submit([_picture()])
    for name, verdict in job.done.result().items():
        if verdict.refused is not None:
            LOG.error("%s cannot score: %s", name, verdict.refused)
            return
    state.ready = True
    LOG.info("ready")


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
