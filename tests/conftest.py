"""What all tests share: one thread, the order in which two workers take the files, and a small world for detectors.

The small world is a CLIP of two blocks, and shards of noise images with text features of their captions.
"""

import os

# Before numpy and torch are imported, and for every process that a test starts. The tests compute little at a time: two threads
# would wait for each other, and `make test` uses the cores by two workers. It costs no coverage: the stages compute with one
# thread anyway (`core.ranks.device`), and the tests that ask whether threads matter set their number themselves.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from nullscope import detectors, model_folder
from nullscope.core.contracts import image_id, text_schema
from nullscope.detectors.base import Context
from nullscope.model_facts import ModelFacts
from nullscope.ops.patches import PatchParams
from nullscope.shards.reading import list_shards
from nullscope.shards.writing import write_manifest, write_shard
from nullscope.tables.listing import Item
from nullscope.tables.parquet import write_table
from nullscope.tables.text import TextTable
from nullscope.training import Data

ROOT = Path(__file__).parents[1]
PATCHES = PatchParams(patch_px=8, grid=4, fill="repeat")
WIDTH = 24  # of the tiny CLIP's embedding


def write_clip(directory: Path, vision: dict, *, width: int, seed: int = 0, **model) -> Path:
    """Write a randomly initialised CLIP with this image tower and hardly any text tower."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": width, "vision_cfg": vision, "text_cfg": text, **model}
    torch.manual_seed(seed)
    directory.mkdir(parents=True)
    save_file(open_clip.model.CLIP(**config).state_dict(), directory / "open_clip_model.safetensors")
    facts = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (directory / "open_clip_config.json").write_text(json.dumps(facts))
    (directory / "source.json").write_text(json.dumps({"repository": "test", "revision": "0"}))
    return directory


def write_convolutional_clip(directory: Path) -> Path:
    """Write a randomly initialised CLIP with the smallest ConvNeXt for an image tower, its stochastic depth on."""
    vision = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "timm_drop_path": 0.5, "image_size": 64}
    return write_clip(directory, vision, width=WIDTH)


def noise_image(seed: int, label: int, side: int = 48) -> bytes:
    """A PNG of noise: real ones are smooth, fakes are not, so that every detector can learn the difference."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (side, side, 3))
    if not label:
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))) // 4
    buffer = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_noise_shards(directory: Path, view: str, patches: PatchParams, *, images: int, per_shard: int) -> list[str]:
    """Write shards of noise images, half of them fake; return their ids in the order of the shards."""
    files = directory / "files"
    files.mkdir(parents=True)
    items = []
    for number in range(images):
        data = noise_image(number, number % 2)
        (files / f"{number}.png").write_bytes(data)
        items.append(Item(image_id(data), number % 2, files / f"{number}.png", "PNG"))
    items.sort(key=lambda item: item.image_id)
    counts = {}
    for number, start in enumerate(range(0, images, per_shard)):
        chunk = items[start : start + per_shard]
        write_shard(chunk, directory / f"train-{number:06d}.tar", view, patches, 10**6)
        counts[f"train-{number:06d}.tar"] = len(chunk)
    write_manifest(directory, counts)
    return [item.image_id for item in items]


def write_texts(path: Path, ids: list[str], width: int) -> Path:
    """Write random text features that span twelve directions, so that a null space is left of any width above."""
    rng = np.random.default_rng(3)
    features = (rng.standard_normal((len(ids), 12)) @ rng.standard_normal((12, width))).astype(np.float32)
    text = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), width)
    write_table(path, pa.table([ids, text], schema=text_schema(width)), text_schema(width))
    return path


# The tests' own detector without CLIP, beside those of the package. `detectors.NAMES` has it only where a test asks for it.
EXTRA = ROOT / "tests/extra_detectors"
detectors.__path__.append(str(EXTRA))


@pytest.fixture
def small_resnet(monkeypatch) -> str:
    """Make `small_resnet` a detector like the others."""
    monkeypatch.setattr(detectors, "NAMES", [*detectors.NAMES, "small_resnet"])
    return "small_resnet"


def conf_of(name: str) -> dict:
    """The committed parameters of a detector."""
    if (EXTRA / f"{name}.yaml").is_file():
        return OmegaConf.to_container(OmegaConf.load(EXTRA / f"{name}.yaml"))
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return OmegaConf.to_container(compose("config", overrides=[f"detectors=[{name}]"]).detectors[name])


def save_model(out: Path, detector, name: str, params: dict, context: Context, **more) -> Path:
    """Write the folder of a detector, without a history; ``more`` is for `ModelFacts`, ``blip`` the folder of one."""
    folders = {**context.backbones, "blip": more.pop("blip", context.backbone("clip"))}
    own = {"patches": context.patches.model_dump(), "max_pixels": 10**6, "caption": {}, **more}
    model_folder.save(out, detector, ModelFacts(detector=name, seed=0, params=params, **own), folders)
    return out


# Where two workers begin: with what takes longest, so that neither waits at the end for the other. The end-to-end run, which
# later tests need, comes first.
LONGEST = (
    *("e2e/test_pipeline.py::test_every_stage", "test_distributed.py", "detectors/test_clip_references.py"),
    *("detectors/test_aide_references.py", "test_scale.py", "backbones/test_vit_l_14.py", "e2e/"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under pytest-xdist, let one worker run a whole file, so that its fixtures are made once; of tests/e2e, a test at a time."""
    if not hasattr(config, "workerinput"):
        return
    places = {}
    for item in items:
        place = item.path.relative_to(ROOT / "tests").as_posix()
        if place.startswith("report/"):  # one project for all files
            place = "report/"
        if place.startswith("e2e/"):
            place += f"::{item.originalname}"
        places[item] = next((number for number, start in enumerate(LONGEST) if place.startswith(start)), len(LONGEST))
        item.add_marker(pytest.mark.xdist_group(place))
    items.sort(key=places.__getitem__)


@dataclass(frozen=True)
class Small:
    """A small world for detectors: a CLIP, shards of both views, text features."""

    context: Context
    folder: Path
    ids: list[str]

    def shards(self, view: str) -> list:
        return list_shards(self.folder / view)

    def data(self, detector, workers: int = 0) -> Data:
        text = TextTable.read(self.folder / "text.parquet") if detector.needs_captions else None
        return Data(self.shards(detector.transform.kind), text, workers)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    vision = {"image_size": PATCHES.mosaic_px, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    clip = write_clip(folder / "clip", vision, width=WIDTH)
    for view in ("patches", "images"):
        ids = write_noise_shards(folder / view, view, PATCHES, images=40, per_shard=7)
    write_texts(folder / "text.parquet", ids, WIDTH)
    return Small(Context({"clip": clip}, PATCHES), folder, ids)
