"""Train the embedded encoders and write everything about them.   usage: python -m nullscope.world.pretrain --out DIR

Writes ``DIR/clip``, ``DIR/blip`` and ``DIR/log.json``, and draws the log to ``docs/encoders``. The two encoders train
side by side, one thread each: so the weights do not depend on how a library splits its sums among threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nullscope.core.files import write_json
from nullscope.world import measure, pretrain_blip, pretrain_clip, pretrain_figures
from nullscope.world import pretrain_pictures as pictures_

FIGURES = Path("docs/encoders")
CLIP_PICTURES, CLIP_EPOCHS = 12_000, 8
BLIP_PICTURES = 20_000
HELD_OUT_PICTURES = 1_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, required=True, help="folder of the two encoders")
    out = arguments.parse_args().out
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        clip, blip = pool.submit(train_clip, out / "clip"), pool.submit(train_blip, out / "blip")
        log = {"clip": clip.result(), "blip": blip.result(), "made": circumstances()}
    write_json(out / "log.json", log)
    pretrain_figures.draw(log, FIGURES)


def train_clip(path: Path) -> dict[str, Any]:
    """Train the CLIP, save it to ``path`` after every epoch; return what it lost, and can do, by epoch."""
    pictures, held_out = _begin(CLIP_PICTURES)
    started, epochs = time.monotonic(), []
    for model, head, losses in pretrain_clip.train(pictures, epochs=CLIP_EPOCHS, seed=pictures_.SEED):
        epoch = {"loss": losses, "seconds": round(time.monotonic() - started)}
        epoch |= {"retrieval": measure.retrieval(model, held_out), "degradations": measure.degradations(model, head, held_out)}
        epochs.append(epoch)
        print("clip", len(epochs), epoch, flush=True)
        pretrain_clip.save(model, path)
    return {"epochs": epochs, "parameters": _count(model), "image parameters": _count(model.visual)}


def train_blip(path: Path) -> dict[str, Any]:
    """Train the BLIP, save it to ``path`` after every epoch; return what it lost, and can do, by epoch."""
    pictures, held_out = _begin(BLIP_PICTURES)
    started, epochs = time.monotonic(), []
    for model, loss in pretrain_blip.train(pictures, seed=pictures_.SEED):
        epoch = {"loss": loss, "seconds": round(time.monotonic() - started)}
        epoch |= {"exactness": measure.exactness(pretrain_blip.captions(model, held_out.small), held_out.captions)}
        epochs.append(epoch)
        print("blip", len(epochs), epoch, flush=True)
        pretrain_blip.save(model, path)
    return {"epochs": epochs, "parameters": _count(model)}


def circumstances() -> dict[str, Any]:
    """Return what one needs to make the encoders again: command, seed, numbers of pictures, versions."""
    packages = ("torch", "open_clip_torch", "transformers", "numpy", "scipy", "scikit-learn", "pillow")
    return {
        "command": "python -m nullscope.world.pretrain --out src/nullscope/assets",
        "seed": pictures_.SEED,
        "pictures": {"clip": CLIP_PICTURES, "blip": BLIP_PICTURES, "held-out": HELD_OUT_PICTURES},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _begin(count: int) -> tuple[pictures_.Pictures, pictures_.Pictures]:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    return pictures_.render("pretrain", count), pictures_.render("held-out", HELD_OUT_PICTURES)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
