"""What the benchmarks run on: pictures, shards and encoders, written to a folder of their own.

Large encoders are initialised at random: speed does not ask what the weights are.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import open_clip
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from transformers import AutoTokenizer, BlipConfig, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from nullscope.backbones.fetch import EMBEDDED, BlipSource, ClipSource, fetch_blip, fetch_clip
from nullscope.core.config import read_params
from nullscope.core.contracts import image_id
from nullscope.ops.patches import PatchParams
from nullscope.shards.reading import Shard, list_shards
from nullscope.shards.writing import write_manifest, write_shard
from nullscope.tables.listing import Item
from nullscope.world.render import WorldParams, write_world

PATCH_PX = {EMBEDDED: 16, "vit_l_14": 32}  # of a mosaic of 7 x 7 patches, by encoders
MAX_PIXELS = 10**8


def write_test_world(folder: Path, reals: int, fakes: int, *, workers: int, **changes: int) -> None:
    """Render so many test pictures of the embedded world, and no more of the other splits than it needs."""
    params = {**read_params()["dataset"]["world"], "train_reals": 1, "train_fakes_per_generator": 1}
    params |= {"val_reals": 1, "val_fakes_per_generator": 1}
    params |= {"test_generators": ["nearest"], "test_reals": reals, "test_fakes_per_generator": fakes}
    write_world(WorldParams(**params | changes), folder, workers=workers)


def world_pictures(folder: Path, count: int) -> list[Item]:
    """Render ``count`` pictures of the embedded world, half of them generated."""
    with contextlib.redirect_stderr(io.StringIO()):  # its progress
        write_test_world(folder, count // 2, count - count // 2, workers=1)
    return items_of(sorted((folder / "test").rglob("*.*")))


def photographs(folder: Path, side_px: int, count: int) -> list[Item]:
    """Write ``count`` windows of the two photographs of scikit-learn, JPEGs of quality 90, enlarged where they are too small."""
    folder.mkdir(parents=True)
    for number in range(count):
        photograph = Image.fromarray(load_sample_images().images[number % 2])
        shift = 3 * (number // 2) % 200
        square = photograph.crop((shift, 0, shift + 427, 427)).resize((side_px, side_px), Image.Resampling.BICUBIC)
        square.save(folder / f"{number:04d}.jpg", quality=90)
    return items_of(sorted(folder.iterdir()))


def items_of(files: list[Path]) -> list[Item]:
    """Return the images of these files, in the order of their ids."""
    found = [Item(image_id(file.read_bytes()), number % 2, file, Image.open(file).format) for number, file in enumerate(files)]
    return sorted(found, key=lambda item: item.image_id)


def patches_of(size: str) -> PatchParams:
    """Return how mosaics are made for these encoders."""
    return PatchParams(patch_px=PATCH_PX[size], grid=7, fill="repeat")


def write_shards(items: list[Item], folder: Path, view: str, patches: PatchParams, per_shard: int) -> list[Shard]:
    """Write shards as the stage `shard` does."""
    folder.mkdir(parents=True)
    counts = {}
    for number, start in enumerate(range(0, len(items), per_shard)):
        name, chunk = f"test-{number:06d}.tar", items[start : start + per_shard]
        write_shard(chunk, folder / name, view, patches, MAX_PIXELS)
        counts[name] = len(chunk)
    write_manifest(folder, counts)
    return list_shards(folder)


def write_clip(size: str, folder: Path) -> Path:
    """Write the CLIP of the package, or a randomly initialised ViT-L/14."""
    if size == EMBEDDED:
        fetch_clip(ClipSource(repository=EMBEDDED, revision="1", architecture=EMBEDDED), folder)
        return folder
    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    folder.mkdir()
    save_file(open_clip.model.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def write_blip(size: str, folder: Path) -> Path:
    """Write the BLIP of the package, or a randomly initialised one of the size of Salesforce's base, with the package's words."""
    if size == EMBEDDED:
        fetch_blip(BlipSource(repository=EMBEDDED, revision="1"), folder)
        return folder
    small = write_blip(EMBEDDED, folder.with_name("embedded-blip"))
    words = BlipConfig.from_pretrained(small).text_config
    ends = {name: getattr(words, name) for name in ("vocab_size", "bos_token_id", "eos_token_id", "sep_token_id", "pad_token_id")}
    config = BlipConfig(text_config={**ends, "is_decoder": True})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(small).save_pretrained(folder)
    BlipImageProcessorPil().save_pretrained(folder)
    return folder
