"""The routes: scores, health, counts, the description of the interface, and the page."""

from __future__ import annotations

import asyncio
import base64
import hmac
import importlib.metadata
import io
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from PIL import Image
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nullscope.explanation import explain as explain_image
from nullscope.prediction import Judge
from nullscope.serving.answers import Explained, Fault, FileScores, Scores, described, model_score
from nullscope.serving.counters import Counters
from nullscope.serving.limits import Declined, Limits
from nullscope.serving.scorer import Job, Scorer
from nullscope.serving.uploads import FIELD, Upload, read_uploads

LOG = logging.getLogger("nullscope.serve")
VERSION = importlib.metadata.version("nullscope")
GONE = 499  # what nginx calls a client that went away; it is counted, and nobody receives it
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PAGES = {"/": "page.html", "/docs": "docs.html", "/page.js": "page.js", "/page.css": "page.css", "/docs.js": "docs.js"}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


@dataclass
class State:
    """What the routes share."""

    scorer: Scorer
    limits: Limits
    key: str
    counters: Counters
    ready: bool = False
    under_way: int = 0  # requests


def create_app(judges: Mapping[str, Judge], limits: Limits = Limits(), key: str = "") -> FastAPI:  # noqa: B008 (it is frozen)
    """Return the application for models by name; ``key``: what `Authorization: Bearer` must carry, empty: nothing."""
    state = State(Scorer(judges, limits.images), limits, key, Counters())
    app = FastAPI(title="nullscope", version=VERSION, description=__doc__, docs_url=None, redoc_url=None)
    app.state.nullscope = state
    app.add_middleware(_Headers)
    app.exception_handler(Declined)(_declined)
    faults = {status: {"model": Fault} for status in (400, 401, 408, 413, 415, 422, 429, 503, 504)}
    form = {"multipart/form-data": {"schema": _FORM}}
    score = _score_route(state)
    body = {"requestBody": {"content": form, "required": True}}
    app.post("/v1/score", response_model=Scores, responses=faults, openapi_extra=body)(score)
    app.post("/v1/explain", response_model=Explained, responses=faults, openapi_extra=body)(_explain_route(state))
    models = "The models: what they were trained on, and what their thresholds promise."
    app.get("/v1/models", description=models)(lambda: [described(name, judge) for name, judge in judges.items()])
    text: dict[str, Any] = {"response_class": PlainTextResponse}
    app.get("/healthz", description="Whether the process lives.", **text)(lambda: "ok\n")
    app.get("/readyz", **text)(_ready_route(state))
    counts = "Requests, images by answer and seconds, in the text format of Prometheus."
    app.get("/metrics", description=counts, **text)(lambda: state.counters.text(state.scorer.waiting))
    for path, name in PAGES.items():
        app.get(path, include_in_schema=False)(_page_route(name))
    return app


_FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
}


def _score_route(state: State) -> Callable[[Request], Any]:
    async def score(request: Request) -> Any:
        """Score one image or many. A file that cannot be scored has the reason; the others are not affected."""
        return await _admitted(state, request, lambda uploads: _scored(state, uploads))

    return score


def _explain_route(state: State) -> Callable[[Request, str], Any]:
    async def explain(request: Request, model: str) -> Any:
        """Blank the cells of one image in turn, and return how the logit of a model moves."""
        return await _admitted(state, request, lambda uploads: _explained(state, uploads, model))

    return explain


async def _admitted(state: State, request: Request, answer: Callable[[list[Upload]], Awaitable[BaseModel]]) -> Response:
    """Read the files of a request that may come in, and answer it; count it and log how it ended."""
    start, status = time.monotonic(), 500
    try:
        _check_key(request, state.key)
        if not state.ready:
            raise Declined(503, "the models are being loaded", 5)
        if state.under_way >= state.limits.requests:
            raise Declined(429, f"{state.under_way} requests are under way already", 1)
        state.under_way += 1
        try:
            uploads = await read_uploads(request.headers.get("content-type", ""), request.stream(), state.limits)
            found = await answer(uploads)
        finally:
            state.under_way -= 1
        status = 200
        return Response(found.model_dump_json(), media_type="application/json")  # FastAPI would validate it once more
    except Declined as error:
        status = error.status
        raise
    except ClientDisconnect:
        status = GONE
        return Response(status_code=400)
    finally:
        seconds = time.monotonic() - start
        state.counters.request(status, seconds)
        LOG.info("%d in %.3f s", status, seconds)


async def _explained(state: State, uploads: Sequence[Upload], model: str) -> Explained:
    judge = state.scorer.judges.get(model)
    if judge is None or len(uploads) != 1:
        raise Declined(400, f"expected one file and a model among {', '.join(state.scorer.judges)}")
    try:
        async with asyncio.timeout(state.limits.seconds):
            found = await asyncio.wrap_future(state.scorer.call(lambda: explain_image(judge, uploads[0].data)))
    except TimeoutError:
        raise Declined(504, f"the image was not explained within {state.limits.seconds:g} s") from None
    except (ValueError, OSError) as error:
        raise Declined(422, str(error)) from None
    file = io.BytesIO()
    Image.fromarray(found.picture_HWC).save(file, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    changes = found.change_N.tolist()
    return Explained(model=model, rows=found.rows, columns=found.columns, logit=found.logit, changes=changes, picture=picture)


async def _scored(state: State, uploads: Sequence[Upload]) -> Scores:
    jobs = state.scorer.submit([upload.data for upload in uploads])
    try:
        async with asyncio.timeout(state.limits.seconds):
            found = await asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs))
    except TimeoutError:
        raise Declined(504, f"the images were not scored within {state.limits.seconds:g} s") from None
    finally:
        _forget(jobs)
    rows = []
    for upload, verdicts in zip(uploads, found, strict=True):
        for name, verdict in verdicts.items():
            outcome = "refused" if verdict.refused is not None else verdict.answer or "no verdict"
            state.counters.image(name, outcome)
        scores = [model_score(name, verdict, state.scorer.judges[name]) for name, verdict in verdicts.items()]
        said = next(iter(verdicts.values())).claims
        rows.append(FileScores(name=upload.name, claims=list(said), scores=scores))
    return Scores(version=VERSION, files=rows)


def _forget(jobs: Sequence[Job]) -> None:
    """Take images out of the queue for which nobody waits any more."""
    for job in jobs:
        job.done.cancel()


def _ready_route(state: State) -> Callable[[], PlainTextResponse]:
    def ready() -> PlainTextResponse:
        """Whether the models are loaded and have scored an image."""
        return PlainTextResponse("ready\n" if state.ready else "loading\n", 200 if state.ready else 503)

    return ready


def _page_route(name: str) -> Callable[[], HTMLResponse]:
    text = files("nullscope.serving").joinpath("page", name).read_text(encoding="utf-8")
    kind: Literal["html", "js", "css"] = name.rpartition(".")[2]

    def page() -> HTMLResponse:
        return HTMLResponse(text, media_type=TYPES[kind])

    return page


def _check_key(request: Request, key: str) -> None:
    """Raise `Declined` unless the request carries the key, where there is one. Compared in constant time."""
    scheme, _, found = request.headers.get("authorization", "").partition(" ")
    if key and not (scheme.lower() == "bearer" and hmac.compare_digest(found.strip().encode(), key.encode())):
        raise Declined(401, "expected the header `Authorization: Bearer KEY` with this server's key")


class _Headers:
    """Adds `HEADERS` to every answer. Plain ASGI: Starlette's own middleware would stand between a route and its body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


async def _declined(request: Request, error: Declined) -> JSONResponse:
    more = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    more |= {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    # The rest of the body was not read: the connection cannot be used again.
    return JSONResponse({"error": error.text}, error.status, headers={**more, "Connection": "close"})
