"""One training on several ranks that is the training on one: each rank runs the image tower on its own rows of the batch.

Only the tower is shared out, which is nearly all of the work. Its features are put together to those of the whole batch on
every rank, and all that follows (heads, contrastive losses, projections, gradient surgery) is computed of the whole batch on
every rank: the detectors' pages know nothing of ranks, and no loss is an average of parts of which it is none. On the way back
each rank takes the rows of the gradient that are its own; what they add to the tower's parameters is summed over the ranks.

    f_r = tower(images_r)                          rank r's own rows, (B_r, D); sizes may differ by one
    f = [f_1 .. f_n]                               (B, D), the same bits on every rank
    dL/dw = sum_r (dL/df)_r df_r/dw                w in the tower

DistributedDataParallel would not do: it averages the gradients of losses of parts of a batch, and of a contrastive loss there
is no such average. A module here that trains without being an encoder (a BatchNorm over a rank's rows, a penalty on the tower's
weights) would be wrong, and there is none.

B images of the whole batch, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.core import ranks


class Shared(nn.Module):
    """A module that gets this rank's rows of a batch: an encoder (its parameters are trained on them), or a part of one."""

    whole: int | None = None  # B; None: its rows are all there are


class RowDropout(Shared, nn.Dropout):
    """Dropout on this rank's rows that drops what it would drop of them with one rank.

    The mask is drawn for the whole batch, by the generator that is everywhere in the same state, and cut: that costs each rank
    the drawing of all rows, next to nothing beside the projections around it. Without other ranks it is `nn.Dropout` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B_r, ...) -> (B_r, ...)."""
        if self.whole is None or not self.training:
            return super().forward(x)
        ones = torch.ones((self.whole, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return x * F.dropout(ones, self.p, training=True)[ranks.own(self.whole)]


class Encoder(Shared):
    """A module from a transform's arrays to features, one row per image; a rank runs it on its own rows."""

    def gathered(self, own_BD: Tensor) -> Tensor:
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


@contextmanager
def shared(model: nn.Module, batch: int) -> Iterator[None]:
    """Within it the encoders of a model in training get this rank's rows of batches of so many images. One rank: nothing changes.

    Raises `ValueError` if there are more ranks than rows.
    """
    if ranks.world_size() > batch:
        raise ValueError(f"{ranks.world_size()} ranks for a batch of {batch} images: expected at most {batch} (NULLSCOPE_RANKS)")
    modules = [module for module in model.modules() if isinstance(module, Shared) and ranks.world_size() > 1]
    for module in modules:
        module.whole = batch
    try:
        yield
    finally:
        for module in modules:
            module.whole = None


def add_up_gradients(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Give every rank the gradients of the whole batch: sums over ranks in encoders, rank 0's for everything else.

    The latter is the same on all ranks already, or would be but for a GPU that rounds otherwise than its neighbour: taken from
    one, the ranks cannot drift apart. One buffer, one sum.
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
