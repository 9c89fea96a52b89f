"""The image tower of a CLIP under the names of published checkpoints: those of OpenAI's code, and those of transformers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nullscope.backbones.attention import fused_state_dict

# Ours, which are open_clip's with q, k and v apart, to those of transformers' CLIPModel.
BLOCK = {"attn": "self_attn", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
OTHERS = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre": "vision_model.pre_layrnorm",
    "ln_post": "vision_model.post_layernorm",
    "proj": "visual_projection.weight",
}
# A regular expression of the names of the text half, which no detector's forward pass uses.
TEXT_HALF = (
    r"model\.(text_model\..*|transformer\..*|token_embedding\.weight|positional_embedding|ln_final\..*"
    r"|text_projection(\.weight)?|logit_scale)"
)


def openai_tensors(tower: nn.Module) -> dict[str, Tensor]:
    """Return a tower's tensors as OpenAI's code names them, ``visual.*``; q, k and v are one."""
    return {f"visual.{name}": tensor for name, tensor in fused_state_dict(tower).items()}


def hub_tensors(tower: nn.Module) -> dict[str, Tensor]:
    """Return a frozen tower's tensors as transformers names them, ``vision_model.*`` and ``visual_projection.weight``."""
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in tower.state_dict().items() if ".lora_" not in name}
    return {hub_name(name): tensor.T if name == "proj" else tensor for name, tensor in state.items()}


def hub_name(name: str) -> str:
    """Return transformers' name of a tower's tensor: ``vision_model.encoder.layers.0.self_attn.q_proj.bias``."""
    if name.startswith("transformer.resblocks."):
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        part = next(part for part in BLOCK if rest.startswith(f"{part}."))
        return f"vision_model.encoder.layers.{number}.{BLOCK[part]}{rest.removeprefix(part)}"
    part = next(part for part in OTHERS if name == part or name.startswith(f"{part}."))
    return OTHERS[part] + name.removeprefix(part)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (m, r), S (r,) and V (r, n) of the leading singular directions of a matrix (m, n): U S V is nearest to it."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank].contiguous(), s[:rank].contiguous(), v[:rank].contiguous()


def differing(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> Iterator[str]:
    """Yield the names whose tensors differ by more than ``tolerance`` of the largest number that is expected, or in shape."""
    for name, tensor in expected.items():
        if name in found:
            same_shape = found[name].shape == tensor.shape
            if not same_shape or (found[name] - tensor).abs().max() > tolerance * tensor.abs().max():
                yield name
