"""train@<detector>-<seed>: shards, text, clip -> models/<detector>-<seed>.   usage: train.py <detector> <seed>

All ranks train; what is written, shown and tracked is rank 0's.
"""

import shutil
from pathlib import Path

from tqdm import tqdm

from nullscope import detectors, tracking
from nullscope.backbones.clip import WEIGHTS_FILE
from nullscope.core import ranks
from nullscope.core.config import load_params, read_params, section_of
from nullscope.core.contracts import FAKE, REAL
from nullscope.core.launcher import arguments
from nullscope.detectors.base import Context
from nullscope.model_facts import ModelFacts, Validation
from nullscope.model_folder import save
from nullscope.ops.patches import PatchParams
from nullscope.shards.reading import list_shards
from nullscope.shards.tars import MANIFEST
from nullscope.tables.parts import scratch
from nullscope.tables.text import TextTable
from nullscope.training import Data, Training
from nullscope.validation import Validated

SHARDS, TEXT = Path("data/shards"), Path("data/text")
CLIP, BLIP, CONVNEXT, INITIAL = (Path("data/encoders") / name for name in ("clip", "blip", "convnext", "initial"))


def main() -> None:
    name, number = arguments("<detector>", "<seed>")
    if not number.isdecimal():
        raise ValueError(f"the seed: expected a whole number of at least 0, found {number!r}")
    seed = int(number)
    tracking.check_store()  # a store that cannot be reached stops the stage here, before any training time is spent
    values = read_params()
    params, patches = section_of(values, f"detectors.{name}"), load_params("patches", PatchParams)
    detector = detectors.build(name, params, Context({"clip": CLIP, "convnext": CONVNEXT}, patches), seed=seed)
    detector.begin(INITIAL)
    folders = {split: SHARDS / detector.transform.kind / split for split in ("train", "val")}
    captions = TEXT / f"{'prompted' if detector.prompted else 'train'}.parquet"
    text = TextTable.read(captions) if detector.needs_captions else None
    val_text = TextTable.read(TEXT / "val.parquet") if detector.captions_at_inference else None
    data = Data(list_shards(folders["train"]), text, ranks.workers(), list_shards(folders["val"]), val_text)
    read = [folder / MANIFEST for folder in folders.values()] + [captions, TEXT / "val.parquet"]
    read += [CLIP / WEIGHTS_FILE, *sorted(CONVNEXT.iterdir()), *sorted(INITIAL.iterdir())]
    folder = scratch("train", name, seed, params, *read)
    device, pause = ranks.device(), ranks.checkpoint_seconds()
    training = Training(detector, data, seed=seed, device=device, scratch=folder, checkpoint_s=pause)
    dataset, prepare = section_of(values, "dataset"), section_of(values, "shard.prepare")
    facts = ModelFacts(
        detector=name,
        seed=seed,
        params=params,
        patches=patches.model_dump(),
        max_pixels=dataset["max_pixels"],
        caption=values["caption"],
        prepare=prepare,
        dataset=dataset["name"],
        images=sum(shard.samples for shard in data.shards),
        rendered=dataset["world"] is not None,
    )
    with tracking.live(name, seed, params, inputs=folder.name) as run:
        done, total, silent = len(training.history), len(training), ranks.rank() > 0
        bar = tqdm(training.run(), total=total, initial=done, desc=f"train {name}-{seed}", unit="step", disable=silent)
        for step in bar:
            run.log(step.step, step.numbers())
            bar.set_postfix({term: f"{value:.3f}" for term, value in step.losses.items()})
        validated = training.validated()
        if ranks.rank() > 0:
            return
        out = Path("models") / f"{name}-{seed}"
        frozen, rows = {"clip": CLIP, "blip": BLIP, "convnext": CONVNEXT}, [step.row() for step in training.history]
        save(out, detector, facts, frozen, rows, validated and validation(validated, f"validation split of `{facts.dataset}`"))
        run.finish(out)
    shutil.rmtree(folder, ignore_errors=True)  # the checkpoint
    print(f"train: {name}, seed {seed}, {len(training.history)} steps -> {out}")


def validation(found: Validated, where: str) -> Validation:
    """Return the logits that a model folder keeps, of both kinds."""
    real, fake = (found.logit_N[found.is_fake_N == label].tolist() for label in (REAL, FAKE))
    return Validation(reals=where, fakes=where, real=real, fake=fake)


if __name__ == "__main__":
    ranks.launch(main)
