"""A detector's image tower at inference: its adapters beside the base weights, merged into them, and merged into stock open_clip.

`adapters` is the tower as training leaves it: peft's layers, three small products more for each of q, k and v. `merged` is what
scoring runs: plain linear layers that hold the sums. `open_clip` is the tower that `nullscope export` writes weights for: q, k
and v fused.
`tf32` is float32 whose products a GPU may round to 10 bits. The adapters are random, of about a tenth of the base weights.
`difference` is the largest between the logit of an image and that of `adapters` in float32; `spread` is the standard deviation of
the logits over the images.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from measure import median_seconds, over_encoders, synchronised
from samples import patches_of, write_clip
from torch import Tensor, nn
from training_step import random_batch

from nullscope import detectors
from nullscope.backbones.attention import fused_state_dict, merge_lora
from nullscope.backbones.clip import _load
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context, Detector


def adapted(clip: Path, size: str) -> Detector:
    """Return a detector whose adapters say something, as after a training."""
    params = section_of(read_params(), "detectors.clip_lora")
    detector = detectors.build("clip_lora", params, Context({"clip": clip}, patches_of(size)), seed=0).eval()
    rng = torch.Generator().manual_seed(0)
    for name, parameter in detector.clip.tower.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=rng)
    return detector


def merged(tower: nn.Module) -> nn.Module:
    """Return a copy of a tower with its adapters in the weights."""
    tower = copy.deepcopy(tower)
    merge_lora(tower)
    return tower


def stock(tower: nn.Module, clip: Path) -> nn.Module:
    """Return open_clip's own tower with the same weights."""
    visual = _load(clip).visual.requires_grad_(False).eval()
    visual.load_state_dict(fused_state_dict(tower))
    return visual


def measure(size: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row of the table for every tower and precision."""
    with tempfile.TemporaryDirectory() as name:
        clip = write_clip(size, Path(name) / "clip")
        detector = adapted(clip, size)
        tower = detector.clip.tower
        towers = {"adapters": tower, "merged": merged(tower), "open_clip": stock(tower, clip)}
    head = detector.to(device).head
    pixels_BCHW = detector.clip.pixels(random_batch(size, count, detector.clip.width).to(device).inputs)

    def logit(tower: nn.Module, precision: str) -> Tensor:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        with torch.inference_mode():
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                feature_BD = tower(pixels_BCHW)
            return head(feature_BD.float()).squeeze(1)

    precisions = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")
    ways = {(precision, kind): tower.to(device) for precision in precisions for kind, tower in towers.items()}
    each = {way: synchronised(lambda way=way: logit(ways[way], way[0]), device) for way in ways}
    seconds = median_seconds(each, rounds=rounds)
    reference_B = logit(towers["adapters"], "fp32")
    return [
        {
            "encoders": size,
            "batch": count,
            "precision": precision,
            "tower": kind,
            "images/s": count / seconds[precision, kind],
            "adapters / this": seconds[precision, "adapters"] / seconds[precision, kind],
            "difference": f"{(logit(ways[precision, kind], precision) - reference_B).abs().max().item():.1e}",
            "spread": f"{reference_B.std(correction=0).item():.1e}",
        }
        for precision, kind in ways
    ]


def main() -> None:
    over_encoders("merging", __doc__, measure, larger="vit_l_14", counted=("batch", 64, "images of a batch"), rounds=10)


if __name__ == "__main__":
    main()
