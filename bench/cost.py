"""What every detector of the leaderboard costs on the embedded world: a training, and scoring.

The trainings of experiment=leaderboard: one step is timed, from images of 128 px, and multiplied by the number of steps. Scoring:
128 images, from their pixels to their logits. Transforms are counted, decoding is not. One thread on the CPU.
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from measure import median_seconds, publish
from omegaconf import OmegaConf

from nullscope import detectors
from nullscope.detectors.base import Context, Detector
from nullscope.images.transforms import image_rng
from nullscope.ops.patches import PatchParams, select
from nullscope.shards.batch import Batch

SIDE_PX, SCORED = 128, 128
TRAINING_IMAGES = 800  # of the embedded world
CLIP = Path(str(files("nullscope") / "assets/clip"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, of which the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with initialize_config_dir(str(Path("conf").resolve()), version_base=None):
        config = OmegaConf.to_container(compose("config", ["experiment=leaderboard"]), resolve=True)
    patches = PatchParams(**config["patches"])
    rows = [cost(name, params, patches, options.rounds) for name, params in config["detectors"].items()]
    publish("cost", rows, rounds=options.rounds, threads=1, clock="CPU time of this process")


def cost(name: str, params: dict, patches: PatchParams, rounds: int) -> dict[str, object]:
    """Return the row of one detector."""
    detector = detectors.build(name, params, Context({"clip": CLIP}, patches), seed=0)
    detector.begin(Path())
    width = detector.clip.width if hasattr(detector, "clip") else 1
    if detector.needs_captions:
        detector.see_captions([torch.randn(256, width)])
    size = detector.params.batch_size
    images = [np.random.default_rng(at).integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8) for at in range(SCORED)]
    if detector.transform.kind == "patches":  # cut when the shards are made
        images = [select(image, patches) for image in images]
    trained = sum(parameter.numel() for phase in detector.phases() for parameter in phase.parameters)
    seconds = {phase.name: 0.0 for phase in detector.phases()}
    for phase in detector.phases():
        detector.phase, optimizer = phase.name, detector.optimizer(phase)

        def step(optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            detector.train().backward(detector.losses(batch(detector, images[:size], width, training=True)))
            optimizer.step()

        steps = phase.epochs * -(-TRAINING_IMAGES // size)
        seconds[phase.name] = steps * median_seconds({"step": step}, rounds=rounds, clock=time.process_time)["step"]
    detector.merge()
    detector.eval()

    @torch.inference_mode()
    def score() -> None:
        for start in range(0, SCORED, size):
            detector(batch(detector, images[start : start + size], width, training=False))

    scoring = median_seconds({"score": score}, rounds=rounds, clock=time.process_time)["score"]
    return {
        "detector": name,
        "trained parameters": trained,
        "training, s": sum(seconds.values()),
        "scoring, images/s": SCORED / scoring,
    }


def batch(detector: Detector, images: list[np.ndarray], width: int, *, training: bool) -> Batch:
    """Return images as the detector's transform gives them, and random features of captions."""
    made = [detector.transform(image, image_rng(f"{at:064x}"), training=training) for at, image in enumerate(images)]
    inputs = {key: torch.from_numpy(np.stack([each[key] for each in made])) for key in made[0]}
    text = torch.randn(len(images), width) if detector.needs_captions or detector.captions_at_inference else None
    return Batch(inputs, torch.arange(len(images)).remainder(2).float(), [str(at) for at in range(len(images))], text)


if __name__ == "__main__":
    main()
