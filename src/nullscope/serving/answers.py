"""What the server says: the shapes of its answers, and how verdicts and models get into them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from nullscope.decision import Answer
from nullscope.model_facts import trained_on
from nullscope.prediction import Judge
from nullscope.verdicts import Verdict


class ModelScore(BaseModel):
    """What one model says of one image."""

    model: str
    logit: float | None = None
    score: float | None = None
    probability: float | None = None  # by the validation's temperature, where half of the images are generated
    answer: Answer | None = None  # none: the score is no verdict
    threshold: float | None = None  # logit
    caption: str | None = None  # that the score rests on too
    refused: str | None = None  # the reason why there is no score


class FileScores(BaseModel):
    """What all models say of one file."""

    name: str
    claims: list[str]  # what the file says of its own origin: no score depends on it
    scores: list[ModelScore]


class Scores(BaseModel):
    """The answer to a request."""

    version: str
    files: list[FileScores]


class Explained(BaseModel):
    """Which cells of the picture that a model reads spoke for "generated"."""

    model: str
    rows: int
    columns: int
    logit: float
    changes: list[float]  # logit less the logit without the cell, row by row
    picture: str  # data: URL of a PNG


class Fault(BaseModel):
    """Why a request got no scores."""

    error: str


def model_score(name: str, verdict: Verdict, judge: Judge) -> ModelScore:
    """Return what a model says of an image."""
    if verdict.refused is not None:
        return ModelScore(model=name, refused=verdict.refused)
    threshold = judge.decision.threshold if verdict.decision else None
    own = {"logit": verdict.logit, "score": verdict.score, "probability": verdict.probability, "caption": verdict.caption}
    return ModelScore(model=name, **own, answer=verdict.answer, threshold=threshold)


def described(name: str, judge: Judge) -> dict[str, Any]:
    """Return what a model is, for people and for the page."""
    promise, band = judge.decision.promise, judge.decision.band
    return {
        "model": name,
        "detector": judge.facts.detector,
        "trained_on": trained_on(judge.facts),
        "judges": judge.judges,
        "rendered": judge.facts.rendered,
        "threshold": judge.decision.threshold,
        "band": list(band) if band else None,
        "false_alarms": promise and {"promised": promise.rate, "low": promise.low, "high": promise.high, "reals": promise.images},
    }
