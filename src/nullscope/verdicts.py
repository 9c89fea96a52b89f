"""What a person gets for one image: a logit, what it means, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nullscope.decision import RATE, Answer, Decision, TooFewError, decide
from nullscope.model_facts import read_validation

TRAINED = Decision()  # the threshold of training


@dataclass(frozen=True)
class Verdict:
    """What came out for one image: a logit, or the reason why there is none."""

    source: str  # the path as it was given; ``bytes``, ``image`` or ``array`` for what has none
    logit: float | None = None
    refused: str | None = None
    identity: str = ""  # hexadecimal SHA-256 of the file's bytes, or of the pixels of an image without a file
    claims: tuple[str, ...] = ()  # what the file says of its own origin; never part of the score
    caption: str | None = None  # that the score rests on too, for a detector that reads one
    decision: Decision | None = TRAINED  # None: the detector has seen nothing like the image; its score is no verdict

    @property
    def score(self) -> float:
        """Sigmoid of the logit: how generated the image looks, from 0 to 1. Raises `ValueError` if the image was refused."""
        return 1 / (1 + math.exp(-max(-700.0, self._known())))

    @property
    def probability(self) -> float | None:
        """The chance that an image with this logit is generated, where half of the images are, by the validation's temperature.

        None where the model keeps no validation, or the score is no verdict. Raises `ValueError` if the image was refused.
        """
        logit = self._known()
        return self.decision.probability(logit) if self.decision else None

    @property
    def answer(self) -> Answer | None:
        """What is said of the image; None where the score is no verdict. Raises `ValueError` if the image was refused."""
        logit = self._known()
        return self.decision.answer(logit) if self.decision else None

    @property
    def fake(self) -> bool | None:
        """Whether the image is taken for a generated one; None where that is not sure, or the score is no verdict.

        Raises `ValueError` if the image was refused.
        """
        return {"generated": True, "real": False}.get(self.answer or "")

    def as_dict(self) -> dict[str, object]:
        """Return what is printed: ``source``, ``logit``, ``score``, ``answer``, ``fake``, ``claims``; or the reason."""
        if self.refused is not None:
            return {"source": self.source, "refused": self.refused}
        said = {"answer": self.answer, "fake": self.fake, "probability": self.probability, "claims": list(self.claims)}
        said |= {"caption": self.caption} if self.caption is not None else {}
        return {"source": self.source, "logit": self.logit, "score": self.score, **said}

    def _known(self) -> float:
        if self.logit is None:
            raise ValueError(f"{self.source} was refused, and has no score: {self.refused}")
        return self.logit


def decision_of(folder: Path, fpr: float | None, *, band: bool = True) -> Decision:
    """Return how the model in ``folder`` turns logits into answers. Raises `ValueError` if it cannot promise ``fpr``."""
    validation = read_validation(folder)
    if validation is None:
        if fpr is not None:
            raise ValueError(
                f"{folder}: this model has no validation logits to set a threshold for {100 * fpr:g} % false alarms on; make a "
                "copy that has, with `nullscope calibrate` and photographs of yours"
            )
        return TRAINED
    try:
        return decide(validation.real, validation.fake, RATE if fpr is None else fpr, band=band)
    except TooFewError as error:
        if fpr is not None:
            raise ValueError(
                f"{folder}: {error} ({validation.reals}); `nullscope calibrate` takes photographs of yours"
            ) from None
        return TRAINED
