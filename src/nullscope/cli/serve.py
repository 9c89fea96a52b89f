"""``nullscope serve``: detectors behind HTTP, with a page."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nullscope.cli.shared import FOLDER, fail

KEY = "NULLSCOPE_API_KEY"


@click.command()
@click.option("--model", "models", type=FOLDER, multiple=True, required=True, help="Folder of a trained detector; repeatable.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for other machines too.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--fpr", type=float, metavar="RATE", help="False alarms to promise, such as 0.01; default: 0.05, if it can be.")
@click.option("--no-band", is_flag=True, help="Two answers, generated and real: never `not sure`.")
@click.option("--anyway", is_flag=True, help="Give verdicts also with a detector that has seen nothing but rendered scenes.")
@click.option("--max-bytes", default=32 * 2**20, show_default=True, type=click.IntRange(1), help="Of a request.")
@click.option("--max-pixels", default=64_000_000, show_default=True, type=click.IntRange(1), help="Of an image.")
@click.option("--max-files", default=16, show_default=True, type=click.IntRange(1), help="Of a request.")
@click.option("--max-requests", default=32, show_default=True, type=click.IntRange(1), help="At once, in memory.")
@click.option("--max-waiting", default=128, show_default=True, type=click.IntRange(1), help="Images in the queue.")
@click.option(
    "--timeout", default=60.0, show_default=True, type=click.FloatRange(0.1), help="Seconds, to arrive and to be scored."
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
    from nullscope.serving.limits import Limits
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
