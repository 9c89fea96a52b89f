"""The history of a training, ``models/<run>/history.csv``: the one parser, and the numbers that the report takes from it.

A row per optimiser step: ``step``, ``epoch``, ``phase``, ``loss`` and the parts of the loss. The columns ``val_loss``, ``val_ap``
and ``val_auroc``, where a history has them, are filled in the last row of an epoch. An empty cell is a value that the step does
not have. T steps, E epochs.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PLACE = ("step", "epoch", "phase")  # the columns that say where a row stands; all others hold values
VALIDATION = "val_"  # how the names of values of the validation split begin
END_SHARE = 20  # the first and the last 1/20 of the steps stand for the start and the end of a training
SMOOTHED = 25  # a moving average is taken over 1/25 of the steps


@dataclass(frozen=True)
class History:
    """The training of one run. A value that a step does not have is NaN."""

    step_T: NDArray[np.int64]
    epoch_T: NDArray[np.int64]
    phases: list[str]  # T names
    values: dict[str, NDArray[np.float64]]  # column -> (T,)

    @property
    def losses(self) -> list[str]:
        """The columns of the training loss: ``loss``, which was minimised, and its parts."""
        return [name for name in self.values if not name.startswith(VALIDATION)]

    def points(self, column: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the steps that have a value in ``column``, and these values; nothing if there is no such column."""
        values_T = self.values.get(column, np.full(len(self.step_T), np.nan))
        there_T = np.isfinite(values_T)
        return self.step_T[there_T], values_T[there_T]


def read_history(path: Path) -> History | None:
    """Return the history at ``path``, or None if there is no such file: released weights have none.

    Raises `ValueError`, naming the file and the line, unless it has the columns ``step``, ``epoch``, ``phase`` and ``loss``, at
    least one row, rising steps, and numbers in the other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return _parse(csv.DictReader(file), path)
    except FileNotFoundError:
        return None


def _parse(reader: csv.DictReader, path: Path) -> History:
    names = list(reader.fieldnames or [])
    if not {*PLACE, "loss"} <= set(names):
        raise _wrong(path, 1, f"the columns {', '.join(PLACE)}, loss", f"{names}")
    steps, epochs, phases = [], [], []
    values: dict[str, list[float]] = {name: [] for name in names if name not in PLACE}
    for row in reader:
        if None in row or None in row.values():
            raise _wrong(path, reader.line_num, f"{len(names)} cells", f"{row}")
        try:
            steps.append(int(row["step"]))
            epochs.append(int(row["epoch"]))
            phases.append(row["phase"])
            for name, own in values.items():
                own.append(float(row[name]) if row[name] else math.nan)
        except (TypeError, ValueError) as error:
            raise _wrong(path, reader.line_num, "numbers", f"{row} ({error})") from None
        if len(steps) > 1 and steps[-1] <= steps[-2]:
            raise _wrong(path, reader.line_num, f"a step above {steps[-2]}", str(steps[-1]))
    if not steps:
        raise _wrong(path, 1, "a row per step", "none")
    return History(np.array(steps), np.array(epochs), phases, {name: np.array(own) for name, own in values.items()})


def _wrong(path: Path, line: int, expected: str, found: str) -> ValueError:
    return ValueError(
        f"{path}, line {line}: expected {expected}, found {found}; delete the file and run `dvc repro`, or `dvc pull`"
    )


def start_and_end(history: History, column: str, phase: str) -> tuple[int, float, float] | None:
    """Return how many steps of a phase have a value, and the means over the first and the last 1/`END_SHARE` of them.

    None if no step of the phase has one.
    """
    values = history.values[column][np.array(history.phases) == phase]
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    count = max(1, len(values) // END_SHARE)
    return len(values), float(values[:count].mean()), float(values[::-1][:count].mean())


def smooth(history: History, column: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the moving average of a column over 1/`SMOOTHED` of the steps that have a value, and the steps where it stands."""
    step, value = history.points(column)
    if not len(value):
        return step, value
    window = max(1, len(value) // SMOOTHED)
    return step[window - 1 :], np.convolve(value, np.ones(window) / window, mode="valid")
