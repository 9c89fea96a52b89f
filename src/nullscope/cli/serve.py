"""``nullscope serve``: detectors behind HTTP, with a page."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nullscope.cli.shared import FOLDER, fail, judging_options
from nullscope.serving.limits import Limits

KEY = "NULLSCOPE_API_KEY"


@click.command()
@click.option("--model", "models", type=FOLDER, multiple=True, required=True, help="Folder of a trained detector; repeatable.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for other machines too.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@judging_options
@click.option("--max-bytes", default=Limits.bytes, show_default=True, type=click.IntRange(1), help="Of a request.")
@click.option("--max-pixels", default=Limits.pixels, show_default=True, type=click.IntRange(1), help="Of an image.")
@click.option("--max-files", default=Limits.files, show_default=True, type=click.IntRange(1), help="Of a request.")
@click.option("--max-requests", default=Limits.requests, show_default=True, type=click.IntRange(1), help="At once, in memory.")
@click.option("--max-waiting", default=Limits.images, show_default=True, type=click.IntRange(1), help="Images in the queue.")
@click.option(
    "--timeout",
    default=Limits.seconds,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Seconds, to arrive and to be scored.",
)
def serve(
    models: tuple[Path, ...], host: str, port: int, fpr: float | None, no_band: bool, anyway: bool, timeout: float, **bounds: int
) -> None:
    """Serve detectors over HTTP: POST /v1/score, and a page at /.

    Only this machine is served unless --host says otherwise. With NULLSCOPE_API_KEY in the environment, requests for scores need
    the header `Authorization: Bearer KEY`. Images are kept in memory until they are scored; nothing of them is stored or logged.

    \b
    GET /healthz   the process lives            GET /metrics   counts, for Prometheus
    GET /readyz    the models have scored       GET /docs      the interface

    \b
    Examples:
      nullscope serve --model models/npr_official --model models/ns_net-0
      curl -F files=@photo.jpg -F files=@other.png http://127.0.0.1:8000/v1/score
    """
    from nullscope.serving.server import load_judges
    from nullscope.serving.server import serve as served

    limits = Limits(
        bytes=bounds["max_bytes"],
        files=bounds["max_files"],
        pixels=bounds["max_pixels"],
        requests=bounds["max_requests"],
        images=bounds["max_waiting"],
        seconds=timeout,
    )
    try:
        judges = load_judges(models, limits, anyway=anyway, fpr=fpr, band=not no_band)
    except (ValueError, OSError) as error:
        fail(str(error))
    served(judges, host, port, limits, os.environ.get(KEY, ""))
