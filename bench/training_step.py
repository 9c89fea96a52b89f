"""Measure a training step: ours beside the shape of the code around the papers, interleaved in one run.

The naive step does what the published code and the notebooks do: captions are tokenised and encoded at every step, the projector
is a full D x D matrix from an SVD of the captions, mosaics are shuffled, flipped and normalised on the host in float32, one
after the other, everything is computed in float32, and the loss is printed at every step. Ours joins text features from a table,
moves uint8 to the device, removes a thin basis, and fetches losses after some steps. Both train the same LoRA'd tower on the same
images. Where there is a GPU, ours is measured in float32 and in bf16 and with two sizes of a batch; NULLSCOPE_COMPILE=1 compiles
its tower.

The share of the product rate is the rate of the tower's products (forward and backward, as torch counts them) over the rate that
one large product reaches on the same device in the same run.

A GPU's step also depends on what a CPU hardly feels, which is therefore counted: operations (each at least one kernel on a GPU;
views are none), waits for the device (on a GPU as torch sees them, on the CPU the numbers that are read), bytes moved to it; and,
on a GPU, the most memory that a step takes beside weights and moments.
"""

from __future__ import annotations

import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import median_seconds, over_encoders, synchronised
from samples import PATCH_PX, patches_of, write_clip
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nullscope import detectors
from nullscope.backbones.clip import load_image_tower, load_text_encoder
from nullscope.core import ranks
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context, Detector
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.shards.batch import Batch
from nullscope.tables.text import TextTable

CAPTION = "a small red circle on sand before sky"
TOKENS = 77  # of a caption, int64; its features come back and go to the device again
DETECTORS = ("clip_lora", "ns_net", "dgs_net")
IMAGES = 128  # of a round of ours on a GPU, in as many steps as that takes: losses are fetched after the last
Step = Callable[[], None]
Encode = Callable[[list[str]], Tensor]


def random_batch(size: str, count: int, width: int) -> Batch:
    """Return ``count`` random mosaics, half of them fake, with random text features that span as many directions."""
    rng = torch.Generator().manual_seed(0)
    side = 7 * PATCH_PX[size]
    inputs = {
        "image": torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=rng),
        "order": torch.stack([torch.randperm(49, generator=rng) for _ in range(count)]),
        "flip": torch.rand(count, generator=rng) < 0.5,
    }
    ids, is_fake_B = [str(row) for row in range(count)], (torch.arange(count) % 2).float()
    return Batch(inputs, is_fake_B, ids, torch.randn(count, width, generator=rng))


def our_step(detector: Detector, batch: Batch, device: torch.device, bf16: bool) -> Step:
    """The step of nullscope.training, on a batch that a loader would bring."""
    optimizer = detector.optimizer(detector.phases()[-1])
    text = TextTable(batch.image_ids, batch.text_BD, "the benchmark") if detector.needs_captions else None

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = detector.losses(batch.to(device, text))
        detector.backward(losses)
        optimizer.step()

    return step


def naive_step(detector: Detector, batch: Batch, encode: Encode, device: torch.device) -> Step:
    """The same training, written as the published code is."""
    optimizer = detector.optimizer(detector.phases()[-1])
    clip = detector.clip

    def step() -> None:
        optimizer.zero_grad()
        images = torch.stack([mosaic_by_hand(image, clip.mean, clip.std) for image in batch.inputs["image"]]).to(device)
        feature_BD, is_fake_B = clip.tower(images), batch.is_fake_B.to(device)
        contrastive = torch.zeros((), device=device)
        if detector.needs_captions:
            text_BD = encode([CAPTION] * len(images)).to(device)
            _, values, rows = torch.linalg.svd(text_BD, full_matrices=True)
            null = rows[int((values > 1e-6 * values[0]).sum()) :]
            feature_BD = feature_BD @ (null.T @ null)
            contrastive = supervised_contrastive_loss(feature_BD, is_fake_B, temperature=0.07)
        loss = F.binary_cross_entropy_with_logits(detector.head(feature_BD).squeeze(1), is_fake_B) + contrastive
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def naive_dgs_step(detector: Detector, batch: Batch, encode: Encode, teacher: nn.Module, device: torch.device) -> Step:
    """DGS-Net the straightforward way: a second, frozen tower, captions encoded again, gradients put together by hand."""
    optimizer, clip = detector.optimizer(detector.phases()[-1]), detector.clip

    def step() -> None:
        optimizer.zero_grad()
        images = torch.stack([mosaic_by_hand(image, clip.mean, clip.std) for image in batch.inputs["image"]]).to(device)
        is_fake_B = batch.is_fake_B.to(device)
        with torch.no_grad():
            frozen_BD = teacher(images)
        feature_BD, text_BD = clip.tower(images), encode([CAPTION] * len(images)).clone().to(device)
        heads = ((detector.head, feature_BD), (detector.text_head, text_BD), (detector.frozen_head, frozen_BD))
        seen = [feature.detach().requires_grad_() for _, feature in heads]
        losses = [
            F.binary_cross_entropy_with_logits(head(leaf).squeeze(1), is_fake_B)
            for (head, _), leaf in zip(heads, seen, strict=True)
        ]
        (losses[0] + losses[1]).backward()
        help_BD = torch.autograd.grad(losses[2], seen[2])[0].clamp(max=0)
        harm_BD = F.normalize(seen[1].grad.clamp(min=0), dim=1)
        task_BD = seen[0].grad
        feature_BD.backward(task_BD - harm_BD * (task_BD * harm_BD).sum(1, keepdim=True) + 0.2 * help_BD)
        optimizer.step()
        (losses[0] + losses[1]).item()

    return step


class Counts(TorchDispatchMode):
    """Counts what a step asks of a device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.waits = self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += not func.is_view
        self.waits += func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def counted(step: Step) -> Counts:
    """Return the counts of one step, after one that does not count."""
    step()
    with Counts() as counts:
        step()
    return counts


def waits_for(step: Step, device: torch.device) -> int:
    """Return how often a step waits for the device."""
    if device.type == "cpu":
        return counted(step).waits
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def step_gb(step: Step) -> float:
    """Return the most memory of a GPU that a step takes beside what was there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def megabytes(batch: Batch, *, captions: bool) -> tuple[float, float]:
    """Return what ours and the naive step move to the device: bytes and text features, or float32 and tokens."""
    images = batch.inputs["image"]
    ours = sum(tensor.nbytes for tensor in batch.inputs.values()) + batch.is_fake_B.nbytes + captions * batch.text_BD.nbytes
    naive = 4 * images.numel() + batch.is_fake_B.nbytes + captions * len(images) * (TOKENS * 8 + batch.text_BD[0].nbytes)
    return ours / 1e6, naive / 1e6


def mosaic_by_hand(image_CHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Shuffle, flip and normalise one mosaic as the official transform does: a loop over patches, Python's generator."""
    pixels = image_CHW.permute(1, 2, 0).numpy()
    side = len(pixels) // 7
    patches = [pixels[y : y + side, x : x + side] for y in range(0, 7 * side, side) for x in range(0, 7 * side, side)]
    random.shuffle(patches)
    canvas = np.zeros_like(pixels)
    for number, patch in enumerate(patches):
        top, left = number // 7 * side, number % 7 * side
        canvas[top : top + side, left : left + side] = patch
    if random.random() < 0.5:
        canvas = canvas[:, ::-1]
    scaled = (canvas.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def weights_mb(*towers: nn.Module) -> float:
    """Return the size of all weights of image towers."""
    return sum(parameter.nbytes for tower in towers for parameter in tower.parameters()) / 1e6


def product_rate(device: torch.device, bf16: bool, clock: Callable[[], float]) -> float:
    """Return the rate of a large square matrix product, in floating-point operations per second."""
    side, dtype = (8192 if device.type == "cuda" else 1024), (torch.bfloat16 if bf16 else torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)

    def multiply() -> None:
        float((a @ a)[0, 0])

    return 2 * side**3 / median_seconds({"product": multiply}, rounds=10, clock=clock)["product"]


def measure(size: str, name: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return one row of the table for every precision."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(size, Path(folder) / "clip")
        params = section_of(read_params(), f"detectors.{name}")
        detector = detectors.build(name, params, Context({"clip": clip}, patches_of(size)), seed=0)
        encode, teacher = load_text_encoder(clip, device), load_image_tower(clip).to(device)
    batch = random_batch(size, count, detector.clip.width)
    detector.see_captions(iter([torch.randn(64, detector.clip.width)]))
    detector.to(device).train()
    surgery = name == "dgs_net"
    naive = naive_dgs_step(detector, batch, encode, teacher, device) if surgery else naive_step(detector, batch, encode, device)
    ours = {"fp32": our_step(detector, batch, device, bf16=False)}
    if device.type == "cuda":
        ours["bf16"] = our_step(detector, batch, device, bf16=True)
    # The CPU step is single-threaded: its own CPU time does not see the neighbours.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    steps = max(1, IMAGES // count) if device.type == "cuda" else 1
    naive_counts, naive_waits = counted(naive), waits_for(naive, device)
    counts = {precision: counted(step) for precision, step in ours.items()}  # before it is compiled: then torch sees no operation
    if ranks.compiles():
        torch.compiler.reset()  # a second size of a batch would be compiled for every size
        detector.clip.rows_apart = False  # a compiled network is called from one thread, on the CPU too
        detector.clip.compile_network()
    each = {precision: synchronised(lambda step=step: [step() for _ in range(steps)], device) for precision, step in ours.items()}
    seconds = median_seconds({**each, "naive": naive}, rounds=rounds, clock=clock)
    # Adam on the CPU reads one number per parameter; a GPU's lie on the device.
    adam = len(detector.phases()[-1].parameters) if device.type == "cpu" else 0
    weights = weights_mb(detector.clip.tower), weights_mb(detector.clip.tower, *[teacher] * surgery)
    ours_mb, naive_mb = megabytes(batch, captions=detector.needs_captions)
    rows = []
    for precision, step in ours.items():
        step_s = seconds[precision] / steps
        rate = product_rate(device, precision == "bf16", clock)
        rows.append(
            {
                "encoders": size,
                "detector": name,
                "batch": count,
                "ours": precision + ", compiled" * ranks.compiles(),
                "ours images/s": count / step_s,
                "naive images/s": count / seconds["naive"],
                "naive / ours": seconds["naive"] / step_s,
                "share of product rate": counts[precision].flops / step_s / rate,
                "operations": f"{counts[precision].operations} / {naive_counts.operations}",
                "waits": f"{waits_for(step, device) - adam} / {naive_waits - adam}",
                "MB to the device": f"{ours_mb:.2f} / {naive_mb:.2f}",
                "tower MB": f"{weights[0]:.1f} / {weights[1]:.1f}",
                **({"GB of a step": f"{step_gb(step):.2f} / {step_gb(naive):.2f}"} if device.type == "cuda" else {}),
            }
        )
    return rows


def main() -> None:
    def every(size: str, batch: int, rounds: int, device: torch.device) -> list[dict]:
        sizes = (batch, 4 * batch) if device.type == "cuda" else (batch,)
        return [row for count in sizes for name in DETECTORS for row in measure(size, name, count, rounds, device)]

    over_encoders("training_step", __doc__, every, larger="vit_l_14", counted=("batch", 32, "images of a step"), rounds=5)


if __name__ == "__main__":
    main()
