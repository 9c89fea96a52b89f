"""The runs of a project: the models that params.yaml asks for. A run's name is that of its folder and of all its files.

A detector that is trained here has a run per seed, ``ns_net-0``. Weights that a detector's authors released have one run, without
a seed: the folder in ``models/`` that `nullscope import-weights` made, such as ``npr_official``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import NonNegativeInt, StringConstraints

from nullscope.core.config import Params, ParamsError, section_of, validate


class RunParams(Params):
    """The section ``run``."""

    detectors: list[str]  # trained here
    seeds: list[NonNegativeInt]  # of every one of them
    official: list[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]]  # folders in models/, not trained here


@dataclass(frozen=True)
class Run:
    """One model of a project."""

    detector: str
    seed: int | None  # None: weights that its authors released

    @property
    def name(self) -> str:
        """``<detector>-<seed>``, or the name of the detector alone."""
        return self.detector if self.seed is None else f"{self.detector}-{self.seed}"

    @property
    def remedy(self) -> str:
        """The commands that bring its folder in ``models/``."""
        if self.is_official:
            return f"dvc pull models/{self.name}.dvc, or nullscope import-weights"
        return f"dvc repro train@{self.name}, or dvc pull"

    @property
    def is_official(self) -> bool:
        """Whether the detector's authors released the weights."""
        return self.seed is None


def runs_of(params: Mapping[str, Any]) -> list[Run]:
    """Return the runs that the parameters ask for, those that are trained first, in their order.

    Raises `ParamsError` unless they ask for a run at least, and for each once.
    """
    asked = validate("run", section_of(params, "run"), RunParams)
    runs = [Run(detector, seed) for detector in asked.detectors for seed in asked.seeds]
    runs += [Run(name, None) for name in asked.official]
    if not runs:
        raise ParamsError("parameters `run`: expected detectors and seeds, or a model of `official`; found none")
    names = [*asked.detectors, *asked.official]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(set(asked.seeds)) < len(asked.seeds):
        raise ParamsError(
            f"parameters `run`: expected every seed once, and every name once in `detectors` and `official` together; found "
            f"{', '.join(twice) or asked.seeds} twice (nullscope import-weights gives a folder another name: --out models/NAME)"
        )
    return runs


def detector_of(run: str) -> str:
    """Return the detector of a run by the run's name."""
    return run.rpartition("-")[0] or run
