"""The one training loop: a generator of losses, for any detector.

It never asks which detector it has, and knows no file but its checkpoint and no tracker. Every random draw of a step comes from
(seed, phase, step), so that a resumed training needs no generator's state to end with the weights of an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nullscope.data.loading import Batch, training_batches
from nullscope.data.shards import Shard
from nullscope.data.text import TextTable
from nullscope.detectors.base import Detector, Phase
from nullscope.files import replacing_directory, write_json
from nullscope.saved import detached, kept, restore

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Step:
    """What came out of one optimiser step."""

    step: int  # over the whole training, from 0
    epoch: int  # within the phase, from 0
    phase: str
    losses: dict[str, float]  # the terms of the loss, which is their sum

    def row(self) -> dict[str, str | int]:
        """Return this step as a row of history.csv, numbers with six digits."""
        parts = {name: f"{value:.6g}" for name, value in self.losses.items()}
        return {"step": self.step, "epoch": self.epoch, "phase": self.phase, "loss": f"{sum(self.losses.values()):.6g}", **parts}


@dataclass(frozen=True)
class Data:
    """What a detector is trained on."""

    shards: list[Shard]
    text: TextTable | None  # features of the captions; None where the detector needs none
    workers: int


class Training:
    """One training of one detector, resumed from the checkpoint in ``scratch`` if there is one."""

    def __init__(self, detector: Detector, data: Data, *, seed: int, device: torch.device, scratch: Path) -> None:
        """Raises `ValueError` if there are fewer images than one batch."""
        images = sum(shard.samples for shard in data.shards)
        self.steps_per_epoch = images // detector.params.batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"training set of {images} images: expected at least a batch of {detector.params.batch_size}")
        self.detector, self.data, self.seed, self.device, self.scratch = detector, data, seed, device, scratch
        self.history: list[Step] = []
        self._phase = self._epoch = self._batch = 0  # where the training is
        self._moments: dict[str, Tensor] = {}  # of the optimiser, from the checkpoint
        self._saved = time.monotonic()
        if data.text is not None:
            detector.prepare(data.text.chunks())
        detector.to(device)
        if (scratch / "progress.json").is_file():
            self._resume()

    def __len__(self) -> int:
        """Return the number of steps of the whole training."""
        return sum(phase.epochs for phase in self.detector.phases()) * self.steps_per_epoch

    def run(self) -> Iterator[Step]:
        """Train the detector in place; yield every step as it is taken, and keep all of them in ``history``.

        Raises `ValueError` when the loss is no longer a number.
        """
        for number, phase in enumerate(self.detector.phases()):
            if number < self._phase:
                continue
            if number > self._phase:
                self._phase, self._epoch = number, 0
            self.detector.phase = phase.name
            optimizer = self._optimizer(phase)
            while self._epoch < phase.epochs:
                for batch in self._batches(phase):
                    yield self._step(phase, optimizer, batch)
                self._epoch, self._batch = self._epoch + 1, 0

    def _batches(self, phase: Phase) -> Iterator[Batch]:
        self.detector.train()
        return training_batches(
            self.data.shards,
            self.detector.view,
            batch_size=self.detector.params.batch_size,
            seed=zlib.crc32(f"order/{phase.name}/{self.seed}".encode()),
            epoch=self._epoch,
            skip=self._batch,
            workers=self.data.workers,
        )

    def _step(self, phase: Phase, optimizer: torch.optim.Optimizer, batch: Batch) -> Step:
        torch.manual_seed(zlib.crc32(f"step/{phase.name}/{self.seed}/{len(self.history)}".encode()))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.detector.params.precision == "bf16"):
            losses = self.detector.losses(batch.to(self.device, self.data.text))
        self.detector.backward(losses)
        optimizer.step()
        step = Step(len(self.history), self._epoch, phase.name, {name: float(loss.detach()) for name, loss in losses.items()})
        if not all(math.isfinite(value) for value in step.losses.values()):
            raise ValueError(f"step {step.step}: the loss is {step.losses}, expected numbers; try a lower lr")
        self.history.append(step)
        self._batch += 1
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self._save(optimizer)
        return step

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Return the optimiser of a phase, with the moments of the checkpoint where it was made in this phase."""
        optimizer = self.detector.optimizer(phase)
        if self._moments:
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in self._moments.items():
                index, _, key = name.partition(".")
                state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            self._moments = {}
        return optimizer

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        with replacing_directory(self.scratch) as partial:
            save_file(kept(self.detector), partial / "weights.safetensors")
            state = optimizer.state_dict()["state"]
            moments = {f"{number}.{key}": value for number in state for key, value in state[number].items()}
            save_file(detached(moments), partial / "moments.safetensors")
            where = {"phase": self._phase, "epoch": self._epoch, "batch": self._batch}
            write_json(partial / "progress.json", {**where, "history": [asdict(step) for step in self.history]})
        self._saved = time.monotonic()

    def _resume(self) -> None:
        where = json.loads((self.scratch / "progress.json").read_text(encoding="utf-8"))
        self._phase, self._epoch, self._batch = where["phase"], where["epoch"], where["batch"]
        self.history = [Step(**step) for step in where["history"]]
        restore(self.detector, load_file(self.scratch / "weights.safetensors"))
        self._moments = load_file(self.scratch / "moments.safetensors")
