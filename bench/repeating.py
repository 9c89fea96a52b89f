"""The same training twice, 20 steps of NS-Net in batches of 32: the same bits or not, and what deterministic kernels cost.

`same` compares the weights of two runs with the same seed bit by bit; `weights` and `losses` are the largest differences, the
losses' as a share. `deterministic` asks torch for kernels that add in a fixed order (`torch.use_deterministic_algorithms`), for
which cuBLAS wants a workspace of a fixed size: all rows have it. `images/s` is the rate of a step on a batch in memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from feeding import FILES, PER_SHARD, ns_net, pictures, training_of
from measure import median_seconds, over_encoders, synchronised
from samples import patches_of, write_clip, write_shards
from torch import Tensor
from training_step import our_step, random_batch

from nullscope import model_folder
from nullscope.detectors.base import Detector
from nullscope.training import Training

BATCH = 32
CHOICES = (False, True)  # of deterministic kernels


def trained(run: Training, deterministic: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses of every step, and the weights."""
    torch.use_deterministic_algorithms(deterministic)
    loss_S = torch.tensor([sum(step.losses.values()) for step in run.run()])
    return loss_S, model_folder.kept(run.detector)


def rates(detector: Detector, size: str, precision: str, rounds: int, device: torch.device) -> dict[bool, float]:
    """Return images/s of a step, with other kernels and with deterministic ones."""
    step = our_step(detector, random_batch(size, BATCH, detector.clip.width), device, bf16=precision == "bf16")
    steps = 4 if device.type == "cuda" else 1

    def taken(deterministic: bool) -> Callable[[], None]:
        def act() -> None:
            torch.use_deterministic_algorithms(deterministic)
            for _ in range(steps):
                step()

        return synchronised(act, device)

    seconds = median_seconds({choice: taken(choice) for choice in CHOICES}, rounds=rounds)
    return {choice: BATCH * steps / seconds[choice] for choice in CHOICES}


def measure(size: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row of the table for every precision, with and without deterministic kernels."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = pictures(size, folder / "a")
        shards = write_shards(items, folder / "shards", "patches", patches_of(size), PER_SHARD)
        clip, ids = write_clip(size, folder / "clip"), [item.image_id for item in items]

        def fresh(precision: str) -> Training:
            epochs = max(1, count * BATCH // FILES)
            return training_of(ns_net(size, clip, epochs=epochs, precision=precision), shards, ids, device)

        for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
            rate = rates(fresh(precision).detector.train(), size, precision, rounds, device)
            for deterministic in CHOICES:
                (loss_S, weights), (again_S, weights_again) = (trained(fresh(precision), deterministic) for _ in range(2))
                off = [(weights[key] - weights_again[key]).abs().max().item() for key in weights]
                rows.append(
                    {
                        "encoders": size,
                        "steps": len(loss_S),
                        "precision": precision,
                        "deterministic": deterministic,
                        "same": all(torch.equal(weights[key], weights_again[key]) for key in weights),
                        "weights": f"{max(off):.1e}",
                        "losses": f"{((loss_S - again_S) / loss_S).abs().max().item():.1e}",
                        "images/s": rate[deterministic],
                    }
                )
    torch.use_deterministic_algorithms(False)
    return rows


def main() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    over_encoders("repeating", __doc__, measure, larger="vit_l_14", counted=("steps", 20, "steps of a training"), rounds=10)


if __name__ == "__main__":
    main()
