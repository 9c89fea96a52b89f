"""What every detector is to the training loop and to scoring. A detector overrides methods; nothing asks which one it is.

A detector's page holds ``Config`` (a `DetectorParams`) and ``Detector``. B images, D embedding width, K width of the feature that
the classifier sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.config import Params
from nullscope.data.loading import Batch
from nullscope.data.views import PatchMosaic, View, Whole
from nullscope.encoders.attention import LoraParams
from nullscope.encoders.clip import clip_facts
from nullscope.encoders.image_encoder import ImageEncoder, Statistics
from nullscope.ops.null_space import NullSpace, NullSpaceParams
from nullscope.ops.patches import PatchParams


class DetectorParams(Params):
    """What every detector's training needs."""

    epochs: PositiveInt
    batch_size: PositiveInt  # images of one step, over all ranks
    lr: PositiveFloat  # of Adam
    precision: Literal["fp32", "bf16"]  # bf16: autocast; weights, losses and the optimiser stay in float32


class ClipParams(DetectorParams):
    """What every detector on CLIP's image feature needs beside that."""

    view: Literal["patches", "crop", "resize"]  # the patch-selected mosaic, or see nullscope.data.views.Whole
    statistics: Statistics
    flip: float = Field(ge=0, le=1)  # probability of mirroring a training image; 0.5 in the code of DGS-Net


class LinearParams(ClipParams):
    """What a linear head on that feature needs beside that."""

    null_space: NullSpaceParams  # what is taken off the feature first; scope `none`: nothing


@dataclass(frozen=True)
class Context:
    """What a detector is built on: the frozen CLIP of the run, and how its mosaics are made."""

    clip: Path  # folder, see nullscope.encoders.clip
    patches: PatchParams

    def view(self, params: ClipParams) -> View:
        """Return the view that ``params`` ask for. Raises `ValueError` if a mosaic does not fit the CLIP."""
        side = clip_facts(self.clip).image_px
        if params.view != "patches":
            return Whole(params.view, side, params.flip)
        if side != self.patches.mosaic_px:
            raise ValueError(
                f"CLIP expects images of {side} px, a mosaic of {self.patches.grid} x {self.patches.grid} patches of "
                f"{self.patches.patch_px} px has {self.patches.mosaic_px}; choose the encoder and patches.patch_px together"
            )
        return PatchMosaic(self.patches.cells, params.flip)


@dataclass(frozen=True)
class Phase:
    """A stretch of training: which parameters move, how long, how fast."""

    name: str
    parameters: list[nn.Parameter]
    epochs: int
    lr: float


class Detector(nn.Module):
    """A detector of generated images. Subclasses set ``view`` and write `features` and `classify`; the rest has defaults."""

    view: View  # what it reads of every image
    needs_captions: bool = False  # text features of the captions join every training batch
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
        """Return the stretches of training, in order, each with its own optimiser. Default: one, over all that is trainable."""
        return [Phase("main", self.trainable(), self.params.epochs, self.params.lr)]

    def trainable(self, *, but: Iterable[nn.Parameter] = ()) -> list[nn.Parameter]:
        """Return the parameters that train, without those of ``but``, which belong to another phase."""
        others = {id(parameter) for parameter in but}
        return [parameter for parameter in self.parameters() if parameter.requires_grad and id(parameter) not in others]

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Return the optimiser of a phase. Default: Adam, as NS-Net and DGS-Net; on CUDA all its steps in one kernel."""
        fused = True if all(parameter.is_cuda for parameter in phase.parameters) else None
        return torch.optim.Adam(phase.parameters, lr=phase.lr, betas=(0.9, 0.999), fused=fused)

    def prepare(self, texts: Iterable[Tensor]) -> None:
        """See the text features of all training captions once, in chunks (N, D), before training. Default: nothing."""

    def kept_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and value of everything a trained detector adds to its frozen encoders: what is saved and loaded."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        yield from self.named_buffers()


class LinearDetector(Detector):
    """A linear head on CLIP's image feature, off what captions could say if its null space says so.

        u = f - (f B) B^T, f = E_I(image)        (B, D), not normalised
        logit = w u + b                          (B,)

    What else a page draws at random, it draws after this: adapter, then head.
    """

    def __init__(self, params: LinearParams, context: Context, lora: LoraParams | None) -> None:
        """``lora``: the adapter of the image tower; None leaves it frozen."""
        super().__init__(params)
        self.view = context.view(params)
        self.clip = ImageEncoder(context.clip, lora, params.statistics)
        self.null_space = NullSpace(params.null_space, self.clip.width)
        self.needs_captions = self.null_space.needs_captions
        self.captions_at_inference = self.null_space.captions_at_inference
        self.head = nn.Linear(self.clip.width, 1)

    def prepare(self, texts: Iterable[Tensor]) -> None:
        """Find what the null space removes, where there is one."""
        self.null_space.prepare(texts)

    def features(self, batch: Batch) -> Tensor:
        """Return the image features u, (B, D)."""
        return self.null_space(self.clip(batch.inputs), batch.text_BD)

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)
