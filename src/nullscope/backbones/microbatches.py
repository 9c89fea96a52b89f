"""A training batch on the CPU in micro-batches that are computed side by side, with the same bits on any number of CPUs.

Nearly all of a training step is the encoder, and its images do not see each other. So the rows of a batch are cut into `COUNT`
micro-batches. Each goes forward and back in a lane of its own (`core.lanes`), and what they add to a gradient is summed in their
order, whichever is done first:

    f = [e(x_1) .. e(x_M)]               (B, D)
    dL/dw = sum_m (dL/df)_m df_m/dw      w in the encoder

Lanes must not share a random generator. So every row of a batch draws from its own: what dropout drops of an image depends on
the step and on the image's place in the batch, on any number of micro-batches and ranks. The generators are numpy's, which draw
the same on every processor, in less than half the time.

B images of the whole batch, M micro-batches, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nullscope.core import lanes

COUNT = 4  # M; part of what a training is: another number sums in another order
Inputs = dict[str, Tensor]
Encode = Callable[[Inputs], Tensor]

_generators: ContextVar[list[np.random.Generator] | None] = ContextVar("generators", default=None)


class _Microbatch(NamedTuple):
    """Some rows of a batch, and the generators of what is drawn for them."""

    inputs: Inputs
    generators: list[np.random.Generator]


def generators() -> list[np.random.Generator] | None:
    """Return the generators of the rows that are computed here; None outside of a micro-batch, none where nothing trains."""
    return _generators.get()


def encode_in_microbatches(encode: Encode, inputs: Inputs, first: int, trained: Sequence[nn.Parameter]) -> Tensor:
    """Return ``encode(inputs)``, (B_r, D); its graph leads to the parameters ``trained``, and can be gone back through once.

    ``first`` is the place of the first row in the whole batch. torch's global generator moves by one draw; where nothing trains,
    and so nothing is dropped, it does not move.
    """
    seed, count = int(torch.randint(2**62, ())) if trained else None, len(next(iter(inputs.values())))
    microbatches = [
        _Microbatch(
            {name: tensor[place[0] : place[-1] + 1] for name, tensor in inputs.items()},
            [np.random.Generator(np.random.SFC64([seed, first + row])) for row in place] if trained else [],
        )
        for place in np.array_split(np.arange(count), COUNT)
        if len(place)
    ]
    if trained and torch.is_grad_enabled():
        return _Encoded.apply(encode, microbatches, *trained)
    return torch.cat(_forward(encode, microbatches, with_graph=False))


def _forward(encode: Encode, microbatches: Sequence[_Microbatch], *, with_graph: bool) -> list[Tensor]:
    """Return the features of every micro-batch. What torch keeps per thread, the lanes get from here."""
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def features(microbatch: _Microbatch) -> Tensor:
        _generators.set(microbatch.generators)
        with torch.set_grad_enabled(with_graph), torch.autocast("cpu", dtype, enabled=autocast):
            return encode(microbatch.inputs)

    return lanes.each(features, microbatches)


class _Encoded(torch.autograd.Function):
    """The features of all micro-batches, and the sum of what each adds to the gradients."""

    @staticmethod
    def forward(ctx: Any, encode: Encode, microbatches: Sequence[_Microbatch], *trained: nn.Parameter) -> Tensor:
        ctx.trained, ctx.features = trained, _forward(encode, microbatches, with_graph=True)
        return torch.cat([feature_BD.detach() for feature_BD in ctx.features])

    @staticmethod
    def backward(ctx: Any, gradient_BD: Tensor) -> tuple[Tensor | None, ...]:
        pairs = list(zip(ctx.features, gradient_BD.split([len(own_BD) for own_BD in ctx.features]), strict=True))
        added = lanes.each(lambda pair: torch.autograd.grad(pair[0], ctx.trained, pair[1], allow_unused=True), pairs)
        return None, None, *(_sum(own) for own in zip(*added, strict=True))


def _sum(added: Sequence[Tensor | None]) -> Tensor | None:
    """Return the sum, in order, of what the micro-batches add to a gradient; None where they do not use the parameter."""
    used = [own for own in added if own is not None]
    return torch.stack(used).sum(0) if used else None
