"""What every detector is to the training loop and to scoring. A detector overrides methods; nothing asks which one it is.

A detector's module holds ``Config`` (a `DetectorParams`) and ``Detector``. Nothing here knows a backbone: what the detectors on
CLIP share stands in `clip`. B images, K width of the feature that the classifier sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.core.config import Params
from nullscope.images.transforms import Transform
from nullscope.ops.patches import PatchParams
from nullscope.shards.batch import Batch


class DetectorParams(Params):
    """What every detector's training needs."""

    epochs: PositiveInt
    batch_size: PositiveInt  # images of one step, over all ranks
    lr: PositiveFloat  # of the optimiser at the start
    precision: Literal["fp32", "bf16"]  # bf16: autocast; weights, losses and the optimiser stay in float32


class SteppedParams(DetectorParams):
    """Of those whose learning rate is multiplied by a factor after every so many epochs, as in AIGIBench's common harness."""

    decay: PositiveFloat  # 1 keeps the rate
    decay_epochs: PositiveInt

    def factor(self, progress: Progress) -> float:
        """Return what the learning rate is multiplied by."""
        return self.decay ** (progress.epoch // self.decay_epochs)


@dataclass(frozen=True)
class Context:
    """What a detector is built on: the folders of the run's backbones by name, and how its mosaics are made."""

    backbones: Mapping[str, Path]
    patches: PatchParams

    def backbone(self, name: str) -> Path:
        """Return the folder of a backbone. Raises `ValueError` if the run has none of that name."""
        if name not in self.backbones:
            raise ValueError(f"no backbone {name!r}; there are: {', '.join(self.backbones) or 'none'}; see conf/encoder")
        return self.backbones[name]


@dataclass(frozen=True)
class Progress:
    """Where a phase of training is, before one of its steps."""

    epoch: int  # from 0
    epochs: int
    step: int  # within the epoch, from 0
    steps_per_epoch: int

    @property
    def share(self) -> float:
        """The share of the phase that lies behind, from 0 to less than 1."""
        return (self.epoch + self.step / self.steps_per_epoch) / self.epochs


def constant(progress: Progress) -> float:
    """The learning rate stays as it is."""
    return 1.0


@dataclass(frozen=True)
class Phase:
    """A stretch of training: which parameters move, how long, how fast."""

    name: str
    parameters: list[nn.Parameter]
    epochs: int
    lr: float
    weight_decay: float = 0.0
    # What the rate of every parameter group is multiplied by, at each step. A function of the progress alone, so that a resumed
    # training has the rate of an uninterrupted one.
    lr_factor: Callable[[Progress], float] = constant


class Detector(nn.Module):
    """A detector of generated images. Subclasses set ``transform``, write `features` and `classify`; the rest has defaults."""

    backbones: ClassVar[tuple[str, ...]] = ()  # names of the frozen networks that it is built on (`Context`)
    transform: Transform  # from an image to its input
    needs_captions: bool = False  # text features of the captions join every training batch
    prompted: bool = False  # those features are of captions that say whether the image is real (parameter `encoder.prompts`)
    captions_at_inference: bool = False  # and every batch that is scored
    phase: str = ""  # name of the phase of training under way; the training loop sets it

    def __init__(self, params: DetectorParams) -> None:
        super().__init__()
        self.params = params

    def features(self, batch: Batch) -> Tensor:
        """Return what the classifier sees of every image, (B, K) float32."""
        raise NotImplementedError

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return one logit per feature, (B,) float32; above 0 means generated."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Return one logit per image, (B,) float32; above 0 means generated."""
        return self.classify(self.features(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss by name; the loss is their sum. Default: binary cross-entropy of the logits."""
        return {"bce": F.binary_cross_entropy_with_logits(self(batch), batch.is_fake_B)}

    def backward(self, losses: dict[str, Tensor]) -> None:
        """Put gradients on the parameters. A method that edits gradients overrides this."""
        torch.stack(list(losses.values())).sum().backward()

    def phases(self) -> list[Phase]:
        """Return the stretches of training, in order, each with its own optimiser.

        Default: one, over all that is trainable; its rate falls in steps where the parameters say so.
        """
        params = self.params
        factor = params.factor if isinstance(params, SteppedParams) else constant
        return [Phase("main", self.trainable(), params.epochs, params.lr, lr_factor=factor)]

    def trainable(self, *, but: Iterable[nn.Parameter] = ()) -> list[nn.Parameter]:
        """Return the parameters that train, without those of ``but``, which belong to another phase."""
        others = {id(parameter) for parameter in but}
        return [parameter for parameter in self.parameters() if parameter.requires_grad and id(parameter) not in others]

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Return a fresh optimiser of a phase; its groups have the rates of the phase's start. Default: Adam, as NS-Net and
        DGS-Net; on CUDA all its steps in one kernel.
        """
        fused = True if all(parameter.is_cuda for parameter in phase.parameters) else None
        betas = (0.9, 0.999)
        return torch.optim.Adam(phase.parameters, lr=phase.lr, betas=betas, weight_decay=phase.weight_decay, fused=fused)

    def begin(self, folder: Path) -> None:
        """Take the weights that training begins with from ``folder``, once, before it. Default: those that were drawn.

        The folder is written by the stage `encoders`. Raises `ValueError` if it lacks what the parameters ask for.
        """

    def see_captions(self, texts: Iterable[Tensor]) -> None:
        """See the text features of all training captions once, in chunks (N, D), before training. Default: nothing."""

    def from_official(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a published checkpoint, where its form is not that of `official_name`. Default: as they are."""
        return tensors

    def official_frozen(self) -> dict[str, Tensor]:
        """Return the frozen tensors that a published checkpoint may carry too, under its names. Default: none."""
        return {}

    def merge(self) -> None:
        """Make inference as fast as it gets, once, when training is over: add adapters to their weights. Default: nothing."""

    def kept_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and value of everything a trained detector adds to its frozen backbones: what is saved and loaded."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        yield from self.named_buffers()
