"""Effort (Yan et al. 2024, "Orthogonal Subspace Decomposition for Generalizable AI-Generated Image Detection").

A CLIP is fine-tuned where its weights say least. Every projection of the attention is split by its singular values; the leading
part, where what CLIP knows lies, is frozen, and the rest, of rank one, is trained.

    W = U S V,  W' = W - u0 s0 v0 + u s v      u0, s0, v0: the last r singular directions of W; u, s, v begin there and train
    f = E(image; W')                           (B, E)   E: the image tower before its projection
    logit = w f + b                            (B,)

At the start W' is W to the last bit. Only u0, s0 and v0 are stored, r (m + n + 1) numbers for a weight of m x n, and found once,
when training begins: nothing is decomposed when a model is loaded. When training is over W' takes the place of W (`merge`).

*Input.* Nothing is resized; in training a random window of the tower's side, in testing the central one. An image with a side
shorter than ``tile_px`` is laid out side by side first. ``random_crop: false`` takes the central window in training too, as
AIGIBench; what a smaller image lacks is black.

*Recipe.* Adam without weight decay (the AdamW of both codes is the same then).

*Presets.* ``effort_official``: CLIP's statistics, tiles, 2e-4, 48 images a step, and about one pass over ProGAN's 20 classes (the
authors report 18,000 steps; YZY-stack/Effort-AIGI-Detection, UniversalFakeDetect_Benchmark). ``effort_aigibench``: ImageNet's
statistics, central windows, 1e-4, 32 images a step, times 0.8 after every 10 of 101 epochs. ``effort`` alone has a schedule for
the embedded world. ``mlp: true`` splits the two matrices of every MLP too; both codes split the attention alone.

*Not copied.* Both codes leave the text tower trainable, which gets no gradient. The authors' validation is on a test set. The
losses that keep u and v orthogonal to the frozen part are commented out in all published code, and are not here.

B images, E width of the tower, r rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.clip import clip_facts
from nullscope.backbones.published import TEXT_HALF, hub_name, hub_tensors, low_rank
from nullscope.detectors import base, clip
from nullscope.images.transforms import window
from nullscope.shards.batch import Batch

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "out_proj"), ("c_fc", "c_proj")
LEFT = 1e-4  # of the largest weight: what may be left of a checkpoint's difference to the tower behind its split


class Config(clip.TowerParams, base.SteppedParams):
    """Parameters of Effort."""

    rank: PositiveInt  # r; 1 in the paper
    mlp: bool
    tile_px: PositiveInt | None  # None: no tiles
    random_crop: bool


@dataclass(frozen=True)
class TiledCrop:
    """A window of an image at its own scale; a small image is repeated before (the code's ``translate_duplicate``)."""

    crop_px: int
    tile_px: int | None
    random: bool  # in training
    flip: float
    min_side_px: int
    kind: ClassVar[str] = "images"

    def __call__(self, image_HWC: NDArray[np.uint8], rng: np.random.Generator, *, training: bool) -> dict[str, NDArray]:
        """Return ``image`` (3, P, P) uint8 and ``flip`` () bool."""
        short = min(image_HWC.shape[:2])
        if self.tile_px is not None and short < self.tile_px:
            times = -(-self.tile_px // short)
            image_HWC = np.tile(image_HWC, (times, times, 1))
        image_HWC = window(image_HWC, self.crop_px, rng if training and self.random else None)
        image = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        return {"image": image, "flip": np.array(training and rng.random() < self.flip)}


class ResidualLinear(nn.Module):
    """A frozen linear layer whose last singular directions train. Nothing does before `split` has found them."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        m, n = linear.weight.shape
        for name, shape in (("u", (m, rank)), ("s", (rank,)), ("v", (rank, n))):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
            self.register_buffer(f"{name}_start", torch.zeros(shape))

    @torch.no_grad()
    def split(self) -> None:
        """Find the last singular directions of the weight; u, s and v begin there."""
        u, s, v = torch.linalg.svd(self.weight, full_matrices=False)
        rank = len(self.s)
        for name, value in (("u", u[:, -rank:]), ("s", s[-rank:]), ("v", v[-rank:])):
            getattr(self, name).copy_(value)
            getattr(self, f"{name}_start").copy_(value)

    def composed(self) -> Tensor:
        """Return W' (m, n). The same operations make both products, so that they cancel to the last bit at the start."""
        with torch.autocast(self.weight.device.type, enabled=False):  # bfloat16 would lose what training adds
            return self.weight + ((self.u * self.s) @ self.v - (self.u_start * self.s_start) @ self.v_start)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., m)."""
        return F.linear(x, self.composed(), self.bias)

    def plain(self) -> nn.Linear:
        """Return the layer with the weight W', composed in double precision."""
        u, s, v, u0, s0, v0 = (
            tensor.detach().double() for tensor in (self.u, self.s, self.v, self.u_start, self.s_start, self.v_start)
        )
        linear = nn.Linear(*reversed(self.weight.shape), device="meta")
        weight = self.weight.double() + ((u * s) @ v - (u0 * s0) @ v0)
        linear.weight, linear.bias = nn.Parameter(weight.float(), requires_grad=False), self.bias
        return linear


class Detector(clip.ClipDetector):
    """Effort."""

    official_constants = rf"{TEXT_HALF}|model\.visual_projection\.weight"

    def __init__(self, params: Config, context: base.Context) -> None:
        side = clip_facts(context.backbone(clip.CLIP)).image_px
        transform = TiledCrop(side, params.tile_px, params.random_crop, params.flip, context.patches.patch_px)
        super().__init__(params, context, None, transform)
        self.clip.tower.proj = None  # features before the projection
        for module, name in list(self._to_split()):
            setattr(module, name, ResidualLinear(getattr(module, name), params.rank))
        self.head = nn.Linear(len(self.clip.tower.ln_post.weight), 1)
        nn.init.normal_(self.head.weight, std=0.02)

    def begin(self, folder: Path) -> None:
        """Split the weights of the tower."""
        for layer in self.clip.tower.modules():
            if isinstance(layer, ResidualLinear):
                layer.split()

    def features(self, batch: Batch) -> Tensor:
        """Return the features before the projection, (B, E)."""
        return self.clip(batch.inputs).float()

    def classify(self, feature_BK: Tensor) -> Tensor:
        """Return the logits, (B,)."""
        return self.head(feature_BK).squeeze(1)

    def merge(self) -> None:
        """Put W' in the place of W."""
        for module, name in list(self._to_split()):
            setattr(module, name, getattr(module, name).plain())
            module.merged = True

    def _to_split(self) -> list[tuple[nn.Module, str]]:
        """Return the weights that are split: the modules around them, and their names in there."""
        blocks = self.clip.tower.transformer.resblocks
        found = [(block.attn, name) for block in blocks for name in ATTENTION]
        return found + [(block.mlp, name) for block in blocks for name in MLP if self.params.mlp]

    @classmethod
    def official_name(cls, name: str) -> str:
        """Return what the published checkpoint calls a tensor; what it does not hold keeps its name."""
        name = name.replace("head.", "fc.")
        layer, _, part = name.rpartition(".")
        if part in ("u", "s", "v"):
            return f"model.{hub_name(layer.removeprefix('clip.tower.'))}.{part.upper()}_residual"
        return name

    def official_frozen(self) -> dict[str, Tensor]:
        """Return the frozen tensors that a checkpoint holds too, under its names."""
        frozen = hub_tensors(self.clip.tower).items()
        return {f"model.{name}": tensor for name, tensor in frozen if not re.search(r"\.[usv](_start)?$", name)}

    def from_official(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, with the start of every split in the place of the frozen part of its weight.

        Raises `ValueError` where that part is not the tower's weight less something of rank r.
        """
        tensors = dict(tensors)
        layers = {name: layer for name, layer in self.clip.tower.named_modules() if isinstance(layer, ResidualLinear)}
        for name, layer in layers.items():
            published = f"model.{hub_name(f'{name}.weight')}"
            frozen = tensors.pop(f"{published}_main", None)
            if frozen is None or frozen.shape != layer.weight.shape:
                raise ValueError(f"expected {published}_main of shape {tuple(layer.weight.shape)}, found {_shape(frozen)}")
            u, s, v = low_rank(layer.weight - frozen, self.params.rank)
            left = (layer.weight - frozen - (u * s) @ v).abs().max() / layer.weight.abs().max()
            if left > LEFT:
                raise ValueError(
                    f"{published}_main is not the weight of --backbone clip less rank {self.params.rank}: {left:.1e} of it is "
                    "left; is that the CLIP it was trained on?"
                )
            tensors |= {published: layer.weight} | {
                f"clip.tower.{name}.{part}_start": x for part, x in zip("usv", (u, s, v), strict=True)
            }
        return tensors


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else str(tuple(tensor.shape))
