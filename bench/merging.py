"""Inference with adapters merged, beside the same tower with its adapters apart as in training.

One tower has LoRA on q, k and v of every block (rank 6), the other is a copy of it after `merge_lora`. Images are noise; they are
scored one by one on the CPU (one thread) and 64 at a time on a GPU, as `nullscope.scoring` does. `difference` is the largest one
between the features of both, as a part of the largest feature.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path

import torch
from measure import median_seconds, over_encoders, synchronised
from samples import patches_of, write_clip

from nullscope.backbones.attention import LoraParams, merge_lora
from nullscope.backbones.image_encoder import ImageEncoder
from nullscope.scoring import batch_size, one_thread

LORA = LoraParams(rank=6, alpha=6.0, dropout=0.8, rank_stabilised=True)


def measure(size: str, count: int, rounds: int, device: torch.device) -> dict[str, object]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        encoder = ImageEncoder(write_clip(size, Path(name) / "clip"), LORA, "clip").eval()
    for parameter_name, parameter in encoder.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.01)
    merged = copy.deepcopy(encoder)
    merge_lora(merged.tower)
    towers = {"apart": encoder.to(device), "merged": merged.to(device)}
    side, step = patches_of(size).mosaic_px, batch_size(device)
    image = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    batches = [
        {"image": part.to(device), "flip": torch.zeros(len(part), dtype=torch.bool, device=device)} for part in image.split(step)
    ]
    with torch.inference_mode(), one_thread(device):
        features = {which: torch.cat([tower(batch) for batch in batches]) for which, tower in towers.items()}
        each = {which: synchronised(lambda tower=tower: [tower(b) for b in batches], device) for which, tower in towers.items()}
        seconds = median_seconds(each, rounds=rounds, clock=time.process_time if device.type == "cpu" else time.perf_counter)
    difference = (features["apart"] - features["merged"]).abs().max() / features["apart"].abs().max()
    return {
        "encoders": size,
        "images": count,
        "apart ms/image": 1000 * seconds["apart"] / count,
        "merged ms/image": 1000 * seconds["merged"] / count,
        "apart / merged": seconds["apart"] / seconds["merged"],
        "difference": f"{difference.item():.1e}",
    }


def main() -> None:
    over_encoders(
        "merging", __doc__, lambda *how: [measure(*how)], larger="vit_l_14", counted=("images", 64, "images of a round"), rounds=5
    )


if __name__ == "__main__":
    main()
