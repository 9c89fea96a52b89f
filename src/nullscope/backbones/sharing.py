"""One training on several ranks that equals the training on one rank.

Each rank runs the encoder on its own rows of the batch. That is nearly all of the work. The features are then put together, so
that every rank has those of the whole batch. All that follows (heads, contrastive losses, projections, gradient surgery) is
computed for the whole batch on every rank. So the detectors know nothing of ranks. On the way back each rank takes its own rows
of the gradient, and what they add to the encoder's parameters is summed over the ranks.

    f_r = encoder(images_r)                        rank r's own rows, (B_r, D); sizes may differ by one
    f = [f_1 .. f_n]                               (B, D), the same bits on every rank
    dL/dw = sum_r (dL/df)_r df_r/dw                w in the encoder

On the CPU a rank's rows are cut once more, into micro-batches that are computed side by side (`microbatches`).

DistributedDataParallel would not do. It averages the gradients of losses that were computed on parts of the batch. A contrastive
loss compares all images of a batch, so it is no average of such parts.

What looks at several images at once must see all rows of the batch: batch normalisation (`BatchNorm2d`) computes its statistics
over all ranks. Another kind of batch normalisation is refused on several ranks. A penalty on the encoder's weights would be added
once per rank: write it as weight decay of the optimiser.

B images of the whole batch, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones import microbatches
from nullscope.core import ranks


class Shared(nn.Module):
    """A module that gets this rank's rows of a batch: an encoder (its parameters are trained on them), or a part of one."""

    whole: int | None = None  # B; None: its rows are all there are


class RowDropout(Shared, nn.Dropout):
    """Dropout on this rank's rows: it drops what one rank would drop of these rows.

    In a micro-batch (`microbatches`) every row draws from a generator of its own. Elsewhere every rank draws the mask of the
    whole batch, with a generator that is in the same state on all of them, and takes its own rows; drawing is cheap beside the
    projections around it. With one rank that is `nn.Dropout` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B_r, ...) -> (B_r, ...)."""
        generators = microbatches.generators()
        if generators is not None and self.training:
            mask = np.empty(x.shape, np.float32)
            for row, generator in zip(mask, generators, strict=True):
                generator.random(dtype=np.float32, out=row)
                np.multiply(row < np.float32(1 - self.p), np.float32(1 / (1 - self.p)), out=row)
            return x * torch.from_numpy(mask).to(x.dtype)
        if self.whole is None or not self.training:
            return super().forward(x)
        ones = torch.ones((self.whole, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return x * F.dropout(ones, self.p, training=True)[ranks.own(self.whole)]


class BatchNorm2d(Shared, nn.BatchNorm2d):
    """Batch normalisation with the statistics of the whole batch, on any number of ranks.

    (torch's SyncBatchNorm does the same on CUDA alone.) With one rank it is `nn.BatchNorm2d` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B_r, C, H, W) -> (B_r, C, H, W)."""
        if self.whole is None or not self.training:
            return super().forward(x)
        count = self.whole * x.shape[2] * x.shape[3]
        wide = x.float()
        mean_C = _Sum.apply(wide.sum((0, 2, 3))) / count
        centred = wide - mean_C[:, None, None]
        variance_C = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
            self.running_mean.lerp_(mean_C, share)
            self.running_var.lerp_(variance_C * count / (count - 1), share)
        normal = centred * torch.rsqrt(variance_C + self.eps)[:, None, None]
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronised(module: nn.Module) -> nn.Module:
    """Return a network whose `nn.BatchNorm2d` are `BatchNorm2d` above, with the same weights; children are replaced in place."""
    if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
        norm = BatchNorm2d(module.num_features, module.eps, module.momentum)
        norm.load_state_dict(module.state_dict())
        return norm.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, synchronised(child))
    return module


class Encoder(Shared):
    """A module from a transform's arrays to features, one row per image; a rank runs it on its own rows.

    A subclass writes `encode`.
    """

    rows_apart: bool = False  # whether a row's feature is the same whatever rows are beside it, in training too

    def encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the features of some rows, (B_r, D), of what a transform (`nullscope.images.transforms`) gives."""
        raise NotImplementedError

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the features, (B, D); in a training on several ranks of the whole batch, of ``inputs`` of this rank's rows."""
        if not (self.training and self.rows_apart and next(iter(inputs.values())).device.type == "cpu"):
            return self._gathered(self.encode(inputs))
        first = 0 if self.whole is None else ranks.own(self.whole).start
        return self._gathered(microbatches.encode_in_microbatches(self.encode, inputs, first, self.trained()))

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that its features are trained by."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def compile_network(self) -> None:
        """Let torch.compile make the kernels of the network inside, at its first forward pass. Default: nothing is compiled."""

    def _gathered(self, own_BD: Tensor) -> Tensor:
        """Return the features (B, D) of the whole batch, of those of this rank's rows; as they are where there is one rank."""
        return own_BD if self.whole is None or not self.training else _Gather.apply(own_BD, self.whole)


class _Gather(torch.autograd.Function):
    """All ranks' rows, in order; the gradient that comes back is that of the own ones."""

    @staticmethod
    def forward(ctx: Any, own_BD: Tensor, whole: int) -> Tensor:
        ctx.rows = ranks.own(whole)
        wide = torch.promote_types(own_BD.dtype, torch.float32)  # not every backend adds bfloat16
        all_BD = own_BD.new_zeros((whole, *own_BD.shape[1:]), dtype=wide)
        all_BD[ctx.rows] = own_BD.to(wide)  # a sum with zeros is exact
        ranks.add_up(all_BD)
        return all_BD.to(own_BD.dtype)

    @staticmethod
    def backward(ctx: Any, gradient_BD: Tensor) -> tuple[Tensor, None]:
        return gradient_BD[ctx.rows], None


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all ranks. Every rank uses it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        ranks.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        ranks.add_up(total)
        return total


@contextmanager
def shared(model: nn.Module, batch: int) -> Iterator[None]:
    """Within it the encoders of a model get this rank's rows of training batches of ``batch`` images. One rank: nothing changes.

    Raises `ValueError` if there are more ranks than rows, or if a part of the model that trains would see only a rank's rows.
    """
    if ranks.world_size() > batch:
        raise ValueError(f"{ranks.world_size()} ranks for a batch of {batch} images: expected at most {batch} (NULLSCOPE_RANKS)")
    modules = [module for module in model.modules() if isinstance(module, Shared) and ranks.world_size() > 1]
    if ranks.world_size() > 1:
        _refuse_other_norms(model)
    for module in modules:
        module.whole = batch
    try:
        yield
    finally:
        for module in modules:
            module.whole = None


def _refuse_other_norms(model: nn.Module) -> None:
    """Raise `ValueError` if a batch normalisation would take its statistics from one rank's rows."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and not isinstance(module, BatchNorm2d):
            raise ValueError(
                f"{name} is a {type(module).__name__}: on {ranks.world_size()} ranks its statistics would be those of one rank's "
                "rows; build it with nullscope.backbones.sharing.synchronised, or train with NULLSCOPE_RANKS=1"
            )


def add_up_gradients(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Give every rank the gradients of the whole batch: in encoders the sums over ranks, elsewhere those of rank 0.

    Elsewhere the gradients are equal on all ranks, apart from rounding that may differ between two GPUs. They are taken from one
    rank, so that the ranks cannot drift apart. One buffer and one sum serve for all.
    """
    if ranks.world_size() == 1:
        return
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    summed = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if not trained:
        return
    total = torch.cat([parameter.grad.flatten() * (ranks.rank() == 0 or id(parameter) in summed) for parameter in trained])
    ranks.add_up(total)
    for parameter, part in zip(trained, total.split([parameter.numel() for parameter in trained]), strict=True):
        parameter.grad.copy_(part.view_as(parameter.grad))
