"""LoRA on the q, k and v of an open_clip image tower, through peft.

open_clip's blocks use `nn.MultiheadAttention`, whose q, k and v are one fused matrix. peft has an adapter for that class, but it
shares one A among the three, adapts the output projection too, and accepts ``lora_dropout`` without ever applying it. So each
attention becomes a `SplitAttention` with four linear layers that hold the same numbers, and peft wraps q, k and v. When training
is over, `merge_lora` adds the adapters to their projections, and `fused_state_dict` returns weights that stock open_clip loads.

In a training on several ranks each rank has some rows of the batch. Its dropout drops what one rank would drop of these rows
(`RowDropout`).

B images, T tokens, E width of the tower, h heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import peft
import torch
from peft.tuners.lora import LoraLayer
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from nullscope.backbones.sharing import RowDropout
from nullscope.core.config import Params

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
# Whether adapters are left out: of this thread's context, so that other images can be computed with them at the same time.
_frozen: ContextVar[bool] = ContextVar("frozen", default=False)


class LoraParams(Params):
    """LoRA as CLIP-LoRA, NS-Net and DGS-Net set it (loralib/layers.py of MaxZanella/CLIP-LoRA)."""

    rank: PositiveInt
    alpha: PositiveFloat
    dropout: float = Field(ge=0, lt=1)  # on the input of the adapter branch only
    rank_stabilised: bool  # scale alpha / sqrt(rank), as the code of CLIP-LoRA, or alpha / rank, as the paper of LoRA
    blocks: PositiveInt | None = None  # adapt only the last so many blocks of the tower; None: all of them, as the papers


class SplitAttention(nn.Module):
    """Self-attention with separate q, k, v and output projections: the numbers of a fused `nn.MultiheadAttention`."""

    merged = False  # whether an adapter was added to a projection (`merge_lora`), and is gone

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        assert fused.batch_first and fused.in_proj_weight is not None, "expected a batch-first, fused self-attention"
        self.num_heads = fused.num_heads
        for name, weight, bias in zip(PROJECTIONS, fused.in_proj_weight.chunk(3), fused.in_proj_bias.chunk(3), strict=True):
            self.add_module(name, _linear(weight, bias))
        self.out_proj = _linear(fused.out_proj.weight, fused.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """(B, T, E) three times the same -> (B, T, E) and None, the shape of `nn.MultiheadAttention`'s answer."""
        assert key is query and value is query and not need_weights and attn_mask is None, "unmasked self-attention only"
        projections = (self.q_proj, self.k_proj, self.v_proj)
        if _frozen.get():
            projections = tuple(
                project.get_base_layer() if isinstance(project, LoraLayer) else project for project in projections
            )
        q, k, v = (self._heads(project(query)) for project in projections)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out_proj(mixed), None

    def _heads(self, x_BTE: Tensor) -> Tensor:
        """(B, T, E) -> (B, h, T, E / h)."""
        return x_BTE.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def split_attention(tower: nn.Module) -> None:
    """Replace the fused attention of every block of an open_clip vision transformer, in place."""
    for block in tower.transformer.resblocks:
        block.attn = SplitAttention(block.attn)


def add_lora(tower: nn.Module, params: LoraParams) -> None:
    """Put a trainable adapter on q, k and v of the blocks that ``params`` names, in place; everything else is left frozen.

    The adapter changes nothing until it is trained (B = 0). A comes from torch's global generator: seed it first. Raises
    `ValueError` if the tower has fewer blocks than are to be adapted.
    """
    depth = len(tower.transformer.resblocks)
    adapted = depth if params.blocks is None else params.blocks
    if adapted > depth:
        raise ValueError(f"lora.blocks: expected at most the {depth} blocks of the tower, found {adapted}")
    config = peft.LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        use_rslora=params.rank_stabilised,
        target_modules=rf"transformer\.resblocks\.({'|'.join(map(str, range(depth - adapted, depth)))})\.attn\.(q|k|v)_proj",
    )
    peft.inject_adapter_in_model(config, tower)
    for layer in tower.modules():
        if isinstance(layer, LoraLayer) and params.dropout:
            layer.lora_dropout["default"] = RowDropout(params.dropout).train(layer.training)


@contextmanager
def without_adapters() -> Iterator[None]:
    """Within it towers are what they were before `add_lora`; their parameters and peft's switches are left alone."""
    token = _frozen.set(True)
    try:
        yield
    finally:
        _frozen.reset(token)


def are_adapters_off() -> bool:
    """Whether this is within `without_adapters`."""
    return _frozen.get()


def merge_lora(tower: nn.Module) -> None:
    """Add every adapter to its projection, W + s B A, in place: the same function in training's `eval` mode, and faster.

    A projection is a plain `nn.Linear` afterwards. There is no way back to the frozen tower or to the adapters, so `merged` says
    what happened: who needs them asks it.
    """
    for module in list(tower.modules()):
        if isinstance(module, SplitAttention):
            for name in PROJECTIONS:
                layer = getattr(module, name)
                if isinstance(layer, LoraLayer):
                    setattr(module, name, _linear(*_merged_linear(layer)).requires_grad_(False))
                    module.merged = True


def is_merged(module: nn.Module) -> bool:
    """Whether adapters were merged anywhere inside ``module``."""
    return any(isinstance(inner, SplitAttention) and inner.merged for inner in module.modules())


def fused_state_dict(tower: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a split tower as stock open_clip names them, adapters merged; the tower is left alone."""
    state = {}
    for name, module in tower.named_modules():
        if isinstance(module, SplitAttention):
            merged = [_merged_linear(getattr(module, projection)) for projection in PROJECTIONS]
            state[f"{name}.in_proj_weight"] = torch.cat([weight for weight, _ in merged])
            state[f"{name}.in_proj_bias"] = torch.cat([bias for _, bias in merged])
    for name, tensor in tower.state_dict().items():
        if not any(f".{projection}." in name for projection in PROJECTIONS):
            state[name] = tensor
    return state


def _merged_linear(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear layer, with the product of its adapter added where it has one.

    Computed in double precision and rounded once, so that no kind of processor merges otherwise than another.
    """
    if not isinstance(layer, LoraLayer):
        return layer.weight.detach(), layer.bias.detach()
    base = layer.get_base_layer()
    weight = base.weight.detach().double()
    for adapter in layer.active_adapters:
        a, b = (matrices[adapter].weight.detach().double() for matrices in (layer.lora_A, layer.lora_B))
        weight = weight + layer.scaling[adapter] * (b @ a)
    return weight.to(base.weight.dtype), base.bias.detach()


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return layer
