"""On a GPU: does the host wait for the device in a training step, does the device wait for the host, what do pinned copies do?

`pinned` is the step of `nullscope.training` in bf16: a batch goes to the device from pinned memory, and nobody waits for it.
`pageable` is the same step with plain copies, which the host waits for. `naive` is the one of training_step.py, in float32.
Per step: `waits` that torch sees, waits that CUDA's profiler sees (`cudaStreamSynchronize` and the like), kernels; and the share
of the time in which a kernel runs. The profiler slows the host down: it runs after the clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import torch
from measure import gpu, median_seconds, publish, synchronised
from samples import patches_of, write_clip
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from training_step import Step, naive_step, our_step, random_batch, waits_for

from nullscope import detectors
from nullscope.backbones.clip import load_text_encoder
from nullscope.core import ranks
from nullscope.core.config import read_params, section_of
from nullscope.detectors.base import Context
from nullscope.shards import batch as batches

STEPS, PROFILED = 8, 2  # of a round, under the profiler
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")


def pageable(step: Step) -> Step:
    """Return the step with copies as they are without pinned memory."""

    def run() -> None:
        with patch.object(batches, "_onto", lambda device, tensor: tensor.to(device)):
            step()

    return run


def profiled(step: Step) -> dict[str, object]:
    """Return what CUDA's profiler counts in a step, a mean over `PROFILED`."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            step()
        torch.cuda.synchronize()
    calls = Counter(event.name for event in profiler.events())
    on_device = [event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA]
    return {
        # The one of the line above is not the step's.
        "waits, CUDA": (sum(calls[name] for name in WAITS) - 1) / PROFILED,
        "copies": sum(count for name, count in calls.items() if name.startswith("cudaMemcpy")) / PROFILED,
        "kernels": sum(count for name, count in calls.items() if name.startswith(LAUNCHES)) / PROFILED,
        "kernel ms": sum(event.self_device_time_total for event in on_device) / 1e3 / PROFILED,
    }


def host_ms(step: Step) -> float:
    """Return how long the host takes to ask for a step, when the device is done with everything before."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def measure(size: str, count: int, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Return a row of the table for every way to step."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(size, Path(folder) / "clip")
        params = section_of(read_params(), "detectors.ns_net")
        detector = detectors.build("ns_net", params, Context({"clip": clip}, patches_of(size)), seed=0)
        encode = load_text_encoder(clip, device)
    batch = random_batch(size, count, detector.clip.width)
    detector.see_captions(iter([torch.randn(64, detector.clip.width)]))
    detector.to(device).train()
    ours = our_step(detector, batch, device, bf16=True)
    steps = {"pinned": ours, "pageable": pageable(ours), "naive": naive_step(detector, batch, encode, device)}
    each = {name: synchronised(lambda step=step: [step() for _ in range(STEPS)], device) for name, step in steps.items()}
    seconds = median_seconds(each, rounds=rounds)
    rows = []
    for name, step in steps.items():
        step_ms, host = 1e3 * seconds[name] / STEPS, sorted(host_ms(step) for _ in range(5))[2]
        seen = profiled(step)
        rows.append(
            {
                "encoders": size,
                "batch": count,
                "step": name,
                "images/s": 1e3 * count / step_ms,
                "step ms": step_ms,
                "host ms": host,
                "waits": waits_for(step, device),
                **seen,
                "share of kernels": seen["kernel ms"] / step_ms,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=["embedded", "vit_l_14"], default=["embedded", "vit_l_14"])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128], help="images of a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of interleaved timing (default: %(default)s)")
    options = parser.parse_args()
    device = ranks.device()
    if device.type == "cpu":
        parser.error("there is no GPU")
    rows = [row for size in options.encoders for count in options.batch for row in measure(size, count, options.rounds, device)]
    publish(f"waiting-{gpu(device)}", rows, rounds=options.rounds, steps=STEPS, device=device.type)


if __name__ == "__main__":
    main()
