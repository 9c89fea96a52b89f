"""Measure a training step: ours beside the shape of the code around the papers, interleaved in one run.

The naive step does what the published code and the notebooks do: captions are tokenised and encoded at every step, the projector
is a full D x D matrix from an SVD of the captions, mosaics are shuffled, flipped and normalised on the host in float32, one
after the other, and everything is computed in float32. Ours joins text features from a table, moves uint8 to the device and
removes a thin basis (bf16 where there is a GPU). Both train the same LoRA'd tower on the same images.

The share of the product rate is the rate of the tower's products (forward and backward, as torch counts them) over the rate that
one large product reaches on the same device in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from measure import median_seconds, publish
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nullscope import detectors, ranks
from nullscope.config import read_params, section_of
from nullscope.data.loading import Batch
from nullscope.detectors.base import Context, Detector
from nullscope.encoders.clip import load_text_encoder
from nullscope.encoders.fetch import EMBEDDED, ClipSource, fetch_clip
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.ops.patches import PatchParams

PATCH_PX = {"embedded": 16, "vit_l_14": 32}
CAPTION = "a small red circle on sand before sky"
Step = Callable[[], None]


def write_clip(size: str, folder: Path) -> Path:
    """Write the CLIP of the package, or a randomly initialised ViT-L/14: speed does not ask what the weights are."""
    if size == "embedded":
        fetch_clip(ClipSource(repository=EMBEDDED, revision="1", architecture=EMBEDDED), folder)
        return folder
    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    folder.mkdir()
    save_file(open_clip.model.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def random_batch(size: str, count: int, width: int) -> Batch:
    """Return ``count`` random mosaics, half of them fake, with random text features that span as many directions."""
    rng = torch.Generator().manual_seed(0)
    side = 7 * PATCH_PX[size]
    inputs = {
        "image": torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=rng),
        "order": torch.stack([torch.randperm(49, generator=rng) for _ in range(count)]),
        "flip": torch.rand(count, generator=rng) < 0.5,
    }
    return Batch(inputs, (torch.arange(count) % 2).float(), [""] * count, torch.randn(count, width, generator=rng))


def our_step(detector: Detector, batch: Batch, device: torch.device, bf16: bool) -> Step:
    """The step of nullscope.training, on a batch that a loader would bring."""
    optimizer = detector.optimizer(detector.phases()[0])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = detector.losses(batch.to(device))
        detector.backward(losses)
        optimizer.step()
        sum(losses.values()).item()

    return step


def naive_step(detector: Detector, batch: Batch, encode: Callable[[list[str]], Tensor], device: torch.device) -> Step:
    """The same training, written as the published code is."""
    optimizer = detector.optimizer(detector.phases()[0])
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


def product_rate(device: torch.device, bf16: bool) -> float:
    """Return the rate of a large square matrix product, in floating-point operations per second."""
    side, dtype = (8192 if device.type == "cuda" else 1024), (torch.bfloat16 if bf16 else torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)

    def multiply() -> None:
        float((a @ a)[0, 0])

    return 2 * side**3 / median_seconds({"product": multiply}, rounds=10)["product"]


def measure(size: str, name: str, count: int, rounds: int, device: torch.device) -> dict[str, object]:
    """Return one row of the table."""
    bf16 = device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(size, Path(folder) / "clip")
        patches = PatchParams(patch_px=PATCH_PX[size], grid=7, fill="repeat")
        params = section_of(read_params(), f"detectors.{name}")
        detector = detectors.build(name, params, Context(clip=clip, patches=patches), seed=0)
        encode = load_text_encoder(clip, device)
    batch = random_batch(size, count, detector.clip.width)
    detector.prepare(iter([torch.randn(64, detector.clip.width)]))
    detector.to(device).train()
    ours = our_step(detector, batch, device, bf16)
    with FlopCounterMode(display=False) as counter:
        ours()
    seconds = median_seconds({"ours": ours, "naive": naive_step(detector, batch, encode, device)}, rounds=rounds)
    return {
        "encoders": size,
        "detector": name,
        "batch": count,
        "ours images/s": count / seconds["ours"],
        "naive images/s": count / seconds["naive"],
        "naive / ours": seconds["naive"] / seconds["ours"],
        "share of product rate": counter.get_total_flops() / seconds["ours"] / product_rate(device, bf16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", choices=sorted(PATCH_PX), help="default: embedded, and vit_l_14 where there is a GPU")
    parser.add_argument("--batch", type=int, default=32, help="images of a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of interleaved timing (default: %(default)s)")
    options = parser.parse_args()
    device = ranks.device()
    sizes = [options.encoders] if options.encoders else ["embedded"] + ["vit_l_14"] * (device.type == "cuda")
    rows = [measure(size, name, options.batch, options.rounds, device) for size in sizes for name in ("clip_lora", "ns_net")]
    name = f"training_step-{options.encoders}" if options.encoders else "training_step"
    publish(name, rows, rounds=options.rounds, device=device.type, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
