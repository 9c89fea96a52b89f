"""The detectors on pixels: their signals against loops over images, and images per second in scoring and in training.

`signals` times one transform of a batch beside a loop over its images in NumPy, SciPy or PyWavelets, in float32 as ours.
`scoring` times the logits of a batch, published preset, beside the straightforward way: one image after the other, as in the
authors' demos. `training` times a step of a batch beside one of the same images one by one, whose gradients are summed: the same
work, but for the batch normalisation. Inputs are random images of the preset's test size; decoding is not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pywt
import torch
from measure import gpu, median_seconds, publish, synchronised
from scipy import fft
from scipy.signal import convolve2d
from torch import Tensor

from nullscope import detectors
from nullscope.core import ranks
from nullscope.detectors.base import Context, Detector
from nullscope.importing import preset_config
from nullscope.ops.frequency import high_pass_space
from nullscope.ops.patches import PatchParams
from nullscope.ops.residuals import GRADIENTS, gradient, neighbour_residual
from nullscope.ops.wavelets import diagonal_band, haar
from nullscope.shards.batch import Batch

PRESETS = ("cnn_spot", "npr", "ladeda", "tiny_ladeda", "safe", "freqnet", "dffreq")
SIDE_PX = 256
Loop = Callable[[np.ndarray], np.ndarray]  # of one channel of one image, (H, W)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of interleaved timing (default: %(default)s)")
    options = parser.parse_args()
    device = ranks.device()
    facts = {"rounds": options.rounds, "batch": options.batch, "device": device.type, "threads": torch.get_num_threads()}
    ending = "-".join(filter(None, ["", gpu(device)]))
    publish(f"pixel_signals{ending}", signals(options.batch, options.rounds, device), **facts)
    rows = [row for name in PRESETS for row in networks(name, options.batch, options.rounds, device)]
    publish(f"pixel_detectors{ending}", rows, **facts)


def signals(batch: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row for every transform."""
    image_BCHW = torch.rand(batch, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    on_device_BCHW, rows = image_BCHW.to(device), []
    for name, (ours, loop) in TRANSFORMS.items():
        found, expected = ours(on_device_BCHW).cpu().numpy(), looped(loop, image_BCHW.numpy())
        seconds = median_seconds(
            {
                "ours": synchronised(lambda ours=ours: ours(on_device_BCHW), device),
                "loop": lambda loop=loop: looped(loop, image_BCHW.numpy()),
            },
            rounds=rounds,
            clock=clock(device),
        )
        each = {f"{way}, images/s": batch / seconds[way] for way in seconds}
        difference = f"{np.abs(found - expected).max():.0e}"
        rows.append({"signal": name, **each, "loop / ours": seconds["loop"] / seconds["ours"], "difference": difference})
    return rows


def clock(device: torch.device) -> Callable[[], float]:
    """Return the clock: on the CPU that of this process, which does not see its neighbours."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def looped(loop: Loop, image_BCHW: np.ndarray) -> np.ndarray:
    """Return a transform of every channel of every image, one after the other."""
    return np.stack([np.stack([loop(channel) for channel in image]) for image in image_BCHW])


def _residual(x_HW: np.ndarray) -> np.ndarray:
    return x_HW - x_HW[::2, ::2].repeat(2, 0).repeat(2, 1)


def _gradient(x_HW: np.ndarray) -> np.ndarray:
    kernel = np.array(GRADIENTS["right_diag"], np.float32)[::-1, ::-1]  # SciPy's convolution turns it round
    return convolve2d(x_HW, kernel, "same")


def _haar(x_HW: np.ndarray) -> np.ndarray:
    low, (horizontal, vertical, diagonal) = pywt.dwt2(x_HW, "haar")
    return np.stack([low, horizontal, vertical, diagonal])


def _diagonal(x_HW: np.ndarray) -> np.ndarray:
    return pywt.dwt2(x_HW, "bior1.3", mode="symmetric")[1][2]


def _high_pass(x_HW: np.ndarray) -> np.ndarray:
    spectrum = fft.fftshift(fft.fft2(x_HW, norm="ortho"))
    rows, columns = (slice(size // 2 - size // 4, size // 2 + size // 4) for size in x_HW.shape)
    spectrum[rows, columns] = 0
    return np.maximum(fft.ifft2(fft.ifftshift(spectrum), norm="ortho").real, 0)


TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], Loop]] = {
    "residual of NPR": (neighbour_residual, _residual),
    "gradient of LaDeDa": (lambda x: gradient(x, "right_diag"), _gradient),
    "Haar of DFFreq": (haar, _haar),
    "bior1.3 of SAFE": (diagonal_band, _diagonal),
    "high-pass of FreqNet": (high_pass_space, _high_pass),
}


def networks(method: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return the rows of one detector: scoring, and training."""
    detector = built(method).to(device)
    batch = random_batch(count).to(device)
    ones = [
        Batch({name: tensor[at : at + 1] for name, tensor in batch.inputs.items()}, batch.is_fake_B[at : at + 1], ["x"])
        for at in range(count)
    ]

    @torch.inference_mode()
    def score(batches: list[Batch]) -> None:
        detector.eval()
        for each in batches:
            detector.classify(detector.features(each))

    def step(batches: list[Batch]) -> None:
        detector.train()
        detector.zero_grad(set_to_none=True)
        for each in batches:
            logit_B = detector.classify(detector.features(each))
            torch.nn.functional.binary_cross_entropy_with_logits(logit_B, each.is_fake_B, reduction="sum").backward()

    rows = []
    for what, act in (("scoring", score), ("training", step)):
        ways = {"ours": [batch], "loop": ones}
        seconds = median_seconds(
            {way: synchronised(lambda act=act, given=given: act(given), device) for way, given in ways.items()},
            rounds=rounds,
            clock=clock(device),
        )
        each = {f"{way}, images/s": count / seconds[way] for way in seconds}
        rows.append({"detector": method, "in": what, **each, "loop / ours": seconds["loop"] / seconds["ours"]})
    return rows


def built(method: str) -> Detector:
    """Return a detector by the preset of its authors, from random weights. Run in the project's root, where the presets lie."""
    name, config = preset_config(method, None, ["residual=npr"] if method == "tiny_ladeda" else [])
    return detectors.build(name, config["detectors"][name], Context({}, PatchParams(**config["patches"])), seed=0)


def random_batch(count: int) -> Batch:
    """Return random images of `SIDE_PX`, half of them fakes."""
    rng = torch.Generator().manual_seed(0)
    pixels_BCHW = torch.randint(0, 256, (count, 3, SIDE_PX, SIDE_PX), generator=rng, dtype=torch.uint8)
    return Batch(
        {"image": pixels_BCHW, "flip": torch.zeros(count, dtype=torch.bool)},
        torch.arange(count).remainder(2).float(),
        [str(at) for at in range(count)],
    )


if __name__ == "__main__":
    main()
