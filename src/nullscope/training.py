"""The one training loop: a generator of losses, for any detector.

It never asks which detector it has, and knows no file but its checkpoint and no tracker. Every random draw of a step comes from
(seed, phase, step), so that a resumed training needs no generator's state to end with the weights of an uninterrupted one.

*Several ranks* (`core.ranks`) train the model of one: `backbones.sharing` says how. ``batch_size`` is that of all of them, and
need not be a multiple of their number. What differs is the order in which floats are added. Measured on the CPU in float32, with
all detectors, 5 to 80 steps on 2 and 3 ranks: no loss differs by more than 9e-7 of itself, and no weight by more than 2e-6. With
Advanced NS-Net weights differ by up to 6e-5: Adam divides a gradient by its own size, so a weight whose gradient is mostly
rounding still moves. In bfloat16 losses differ by 2e-3 of themselves, which is what that precision costs at any rate. With the
same number of ranks the bits are the same. Rank 0 writes the checkpoints, and all ranks read them.

*The host does not wait for the device.* Losses stay there and are fetched every `FETCH` steps in one piece, before a checkpoint,
a validation and the end of a phase. So a step is yielded, and a loss that is no number is noticed, up to that many steps later.

*Validation.* After every epoch the detector scores the validation split as it would score a test image: in float32, without any
random draw. Neither weights nor later steps depend on it.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nullscope.backbones.sharing import Encoder, add_up_gradients, shared
from nullscope.core import ranks
from nullscope.core.files import replacing_directory, write_json
from nullscope.detectors.base import Detector, Phase, Progress
from nullscope.model_folder import detached, kept, restore
from nullscope.shards.batch import Batch
from nullscope.shards.loading import training_batches
from nullscope.shards.reading import Shard
from nullscope.tables.text import TextTable
from nullscope.validation import Validated, validate

CHECKPOINT_S = 60.0  # between two checkpoints
MAPPINGS = ("losses", "validation")  # of a `Step`; in JSON as lists, since `write_json` sorts keys
FETCH = 16  # steps whose losses are fetched together


@dataclass(frozen=True)
class Step:
    """What came out of one optimiser step."""

    step: int  # over the whole training, from 0
    epoch: int  # within the phase, from 0
    phase: str
    losses: dict[str, float]  # the terms of the loss, which is their sum
    validation: dict[str, float] = field(default_factory=dict)  # after the last step of an epoch: `validated`

    def numbers(self) -> dict[str, float]:
        """Return all numbers of this step by name: ``loss``, its terms, and those of the validation."""
        return {"loss": sum(self.losses.values()), **self.losses, **self.validation}

    def row(self) -> dict[str, str | int]:
        """Return this step as a row of history.csv, numbers with six digits."""
        numbers = {name: f"{value:.6g}" for name, value in self.numbers().items()}
        return {"step": self.step, "epoch": self.epoch, "phase": self.phase, **numbers}


@dataclass(frozen=True)
class _Pending:
    """A step whose losses are still on the device."""

    number: int
    epoch: int
    phase: str
    names: list[str]  # of the L terms
    loss_L: Tensor

    def step(self, losses: list[float]) -> Step:
        return Step(self.number, self.epoch, self.phase, dict(zip(self.names, losses, strict=True)))


@dataclass(frozen=True)
class Data:
    """What a detector is trained on, and what it is validated on after every epoch."""

    shards: list[Shard]
    text: TextTable | None  # features of the captions; None where the detector needs none
    workers: int
    val_shards: Sequence[Shard] = ()  # none: no validation
    val_text: TextTable | None = None  # where the detector needs captions at inference


class Training:
    """One training of one detector, resumed from the checkpoint in ``scratch`` if there is one."""

    def __init__(
        self,
        detector: Detector,
        data: Data,
        *,
        seed: int,
        device: torch.device,
        scratch: Path,
        checkpoint_s: float = CHECKPOINT_S,
    ) -> None:
        """Raises `ValueError` if there are fewer images than one batch, the ranks see different checkpoints, or a tower is to be
        compiled for the CPU.
        """
        images = sum(shard.samples for shard in data.shards)
        self.steps_per_epoch = images // detector.params.batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"training set of {images} images: expected at least a batch of {detector.params.batch_size}")
        self.detector, self.data, self.seed, self.device, self.scratch = detector, data, seed, device, scratch
        self.checkpoint_s = checkpoint_s
        self.history: list[Step] = []
        self._pending: list[_Pending] = []  # steps after those of the history
        self._phase = self._epoch = self._batch = 0  # where the training is
        self._first_lr: list[float] = []  # of the groups of the optimiser, at the start of the phase
        self._state: dict[str, Tensor] = {}  # of the optimiser, from the checkpoint
        self._last: Validated | None = None  # of the last epoch that this process trained
        self._saved = time.monotonic()
        if data.text is not None:
            detector.see_captions(data.text.chunks())
        detector.to(device)
        if ranks.compiles():
            if device.type == "cpu":
                raise ValueError(
                    "NULLSCOPE_COMPILE=1: towers are compiled for CUDA; on the CPU micro-batches run side by side instead"
                )
            for module in detector.modules():
                if isinstance(module, Encoder):
                    module.compile_network()
        if (scratch / "progress.json").is_file():
            self._resume()
        seen = ranks.numbers(len(self.history))
        if len(set(seen)) > 1:
            raise ValueError(f"the ranks resume after {seen} steps: {scratch} must lie on a file system that all of them see")

    def __len__(self) -> int:
        """Return the number of steps of the whole training."""
        return sum(phase.epochs for phase in self.detector.phases()) * self.steps_per_epoch

    def run(self) -> Iterator[Step]:
        """Train the detector in place; yield every step in order, and keep all of them in ``history``.

        Raises `ValueError` when the loss is no longer a number.
        """
        self.detector.train()
        with shared(self.detector, self.detector.params.batch_size):
            yield from self._run()

    def _run(self) -> Iterator[Step]:
        for number, phase in enumerate(self.detector.phases()):
            if number < self._phase:
                continue
            if number > self._phase:
                self._phase, self._epoch = number, 0
            self.detector.phase = phase.name
            optimizer = self._optimizer(phase)
            while self._epoch < phase.epochs:
                for batch in self._batches(phase):
                    self._step(phase, optimizer, batch)
                    if self._batch < self.steps_per_epoch:
                        yield from self._due(optimizer)
                yield from self._end_of_epoch(phase, optimizer)

    def _batches(self, phase: Phase) -> Iterator[Batch]:
        self.detector.train()
        return training_batches(
            self.data.shards,
            self.detector.transform,
            batch_size=self.detector.params.batch_size,
            seed=zlib.crc32(f"order/{phase.name}/{self.seed}".encode()),
            epoch=self._epoch,
            skip=self._batch,
            workers=self.data.workers,
            own=ranks.own(self.detector.params.batch_size),
        )

    def _step(self, phase: Phase, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        number = len(self.history) + len(self._pending)
        torch.manual_seed(zlib.crc32(f"step/{phase.name}/{self.seed}/{number}".encode()))
        factor = phase.lr_factor(Progress(self._epoch, phase.epochs, self._batch, self.steps_per_epoch))
        for group, lr in zip(optimizer.param_groups, self._first_lr, strict=True):
            group["lr"] = lr * factor
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.detector.params.precision == "bf16"):
            losses = self.detector.losses(batch.to(self.device, self.data.text))
        self.detector.backward(losses)
        add_up_gradients(self.detector, phase.parameters)
        optimizer.step()
        loss_L = torch.stack([loss.detach() for loss in losses.values()])
        self._pending.append(_Pending(number, self._epoch, phase.name, list(losses), loss_L))
        self._batch += 1

    def _end_of_epoch(self, phase: Phase, optimizer: torch.optim.Optimizer) -> list[Step]:
        """Validate, and save a checkpoint where it is time; return the steps that were fetched."""
        save, last = self._is_due(), self._epoch + 1 == phase.epochs
        steps = self._fetched() if save or last or self.data.val_shards or len(self._pending) >= FETCH else []
        if self.data.val_shards:
            self._last = self._validated()
            steps[-1] = self.history[-1] = replace(steps[-1], validation=self._last.numbers)
        self._epoch, self._batch = self._epoch + 1, 0
        if save:
            self._save(optimizer)
        return steps

    def validated(self) -> Validated | None:
        """Return what the trained detector says of the validation split, None where there is none. All ranks call it."""
        if self._last is None and self.data.val_shards:
            self._last = self._validated()  # this process went on after the last epoch
        return self._last

    def _validated(self) -> Validated:
        data = self.data
        return validate(self.detector, data.val_shards, data.val_text, device=self.device, workers=data.workers)

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved > self.checkpoint_s

    def _due(self, optimizer: torch.optim.Optimizer) -> list[Step]:
        """Fetch losses and save a checkpoint where it is time; return the steps that were fetched."""
        if self._is_due():
            steps = self._fetched()
            self._save(optimizer)
            return steps
        return self._fetched() if len(self._pending) >= FETCH else []

    def _fetched(self) -> list[Step]:
        """Move the steps taken since the last time to the history, their losses with one wait for the device; return them.

        Raises `ValueError` if a loss is no number. All of them are of one phase, so that each has the same terms.
        """
        if not self._pending:
            return []
        values = torch.stack([pending.loss_L for pending in self._pending]).tolist()
        steps = [pending.step(losses) for pending, losses in zip(self._pending, values, strict=True)]
        for step in steps:
            if not all(math.isfinite(value) for value in step.losses.values()):
                raise ValueError(f"step {step.step}: the loss is {step.losses}, expected numbers; try a lower lr")
        self.history += steps
        self._pending = []
        return steps

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Return the optimiser of a phase, with the state of the checkpoint where that was saved in this phase.

        The learning rates are those of the phase's start. `_step` sets those of the step, so no checkpoint holds them.
        """
        optimizer = self.detector.optimizer(phase)
        self._first_lr = [group["lr"] for group in optimizer.param_groups]
        if self._state:
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in self._state.items():
                index, _, key = name.partition(".")
                state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            self._state = {}
        return optimizer

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        self._saved = time.monotonic()
        if ranks.rank() > 0:
            return
        with replacing_directory(self.scratch) as partial:
            save_file(kept(self.detector), partial / "weights.safetensors")
            save_file(detached(_tensors_of(optimizer)), partial / "optimizer.safetensors")
            where = {"phase": self._phase, "epoch": self._epoch, "batch": self._batch}
            history = [{**asdict(step), **{key: list(getattr(step, key).items()) for key in MAPPINGS}} for step in self.history]
            write_json(partial / "progress.json", {**where, "history": history})

    def _resume(self) -> None:
        where = json.loads((self.scratch / "progress.json").read_text(encoding="utf-8"))
        self._phase, self._epoch, self._batch = where["phase"], where["epoch"], where["batch"]
        self.history = [Step(**{**step, **{key: dict(step[key]) for key in MAPPINGS}}) for step in where["history"]]
        restore(self.detector, load_file(self.scratch / "weights.safetensors"))
        self._state = load_file(self.scratch / "optimizer.safetensors")


def _tensors_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser by parameter and name: ``{"0.exp_avg": ...}``.

    Raises `TypeError` if there is something else than tensors in it, which a checkpoint would lose.
    """
    found = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"{type(optimizer).__name__} keeps a {type(value).__name__} as {key!r}: expected tensors alone")
            found[f"{number}.{key}"] = value
    return found
