"""A copy of a model whose thresholds are set on a user's own photographs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nullscope.copying import check_free, copy_folder
from nullscope.decision import RATE, Decision, decide
from nullscope.model_facts import VALIDATION, Validation, read_validation, write_validation
from nullscope.prediction import Judge
from nullscope.verdicts import Verdict


@dataclass(frozen=True)
class Calibrated:
    """What became of a calibration."""

    decision: Decision  # for `decision.RATE`
    before: float  # share of the photographs that lie above the threshold that the model had
    refused: list[Verdict]  # files that were not scored, with their reasons
    repeated: int  # photographs that were there before


def calibrate(model: Path, out: Path, photographs: Iterable[str | Verdict], where: str, *, workers: int = 0) -> Calibrated:
    """Score photographs and write a copy of ``model`` to ``out`` whose validation reals are their logits.

    ``photographs``: as `prediction.expand` yields them; ``where``: what they are, for the copy's own record. The fakes of the
    model's validation stay. A picture counts once, however often it is there. Raises `ValueError` if the model
    is none, if ``out`` is there, or if too few photographs were scored to promise `decision.RATE`.
    """
    check_free(out)
    judge = Judge(model, workers=workers, anyway=True)
    found = list(photographs)
    verdicts = [own for own in found if isinstance(own, Verdict)]
    verdicts += judge.predict_many([own for own in found if isinstance(own, str)])
    scored = [item for item in verdicts if item.logit is not None]
    own = sorted({item.identity: item.logit for item in scored}.values())
    before = read_validation(model)
    fakes = (before.fakes, before.fake) if before else ("", [])
    decision = decide(own, fakes[1], RATE)
    with copy_folder(model, out, without=(VALIDATION,)) as partial:
        write_validation(partial, Validation(reals=where, fakes=fakes[0], real=own, fake=fakes[1]))
    above = sum(logit > judge.decision.threshold for logit in own) / len(own)
    return Calibrated(decision, above, [item for item in verdicts if item.refused is not None], len(scored) - len(own))
