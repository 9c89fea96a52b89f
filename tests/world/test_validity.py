"""The embedded world is not a toy: what has nothing to do with how pixels are made does not tell real from fake.

Every check trains on the two training generators and judges held-out pictures, by balanced accuracy: the mean of the
reals' and the fakes' accuracy.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nullscope
from nullscope.world import generators, pretrain_pictures, render, scenes
from nullscope.world.render import WorldParams, write_world

pytestmark = pytest.mark.slow  # the world is rendered and looked at by CLIP

TRAINING = ["nearest", "transpose"]
UNSEEN = [name for name in generators.GENERATORS if name not in TRAINING]
ASSETS = Path(nullscope.__file__).parent / "assets"


@dataclass(frozen=True)
class World:
    """N decoded pictures; their files' sizes and suffixes; captions; makers; whether they are for training, else for testing."""

    pictures: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    is_png: NDArray[np.bool_]
    captions: list[str]
    makers: NDArray[np.str_]
    is_training: NDArray[np.bool_]

    def of(self, *makers: str) -> NDArray[np.bool_]:
        return np.isin(self.makers, makers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("validity") / "world"
    params = WorldParams(
        seed=11,
        train_reals=400,
        train_fakes_per_generator=200,
        train_generators=TRAINING,
        val_reals=1,  # the checks leave the validation split out, and a world has one
        val_fakes_per_generator=1,
        test_reals=300,
        test_fakes_per_generator=80,
        test_generators=list(generators.GENERATORS),
        shortcut=0.0,
    )
    write_world(params, root, workers=2)
    return _read(root)


def _read(root: Path) -> World:
    with open(root / render.CAPTIONS, encoding="utf-8") as file:
        rows = [(Path(row["path"]), row["caption"]) for row in csv.DictReader(file)]
    rows = [(path, caption) for path, caption in rows if path.parts[0] != "val"]
    data = [(root / path).read_bytes() for path, _ in rows]
    return World(
        pictures=np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in data]),
        sizes=np.array([len(one) for one in data]),
        is_png=np.array([path.suffix == ".png" for path, _ in rows]),
        captions=[caption for _, caption in rows],
        makers=np.array([path.parts[1] for path, _ in rows]),
        is_training=np.array([path.parts[0] == "train" for path, _ in rows]),
    )


def _balanced_accuracy(world: World, features_NK: NDArray[np.floating], fakes: list[str]) -> float:
    """Fit on the training pictures; mean of the accuracy on test reals and the mean accuracy on ``fakes``."""
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    fitted.fit(features_NK[world.is_training], ~world.of(render.REALS)[world.is_training])
    is_called_fake = fitted.predict(features_NK)
    reals = 1 - is_called_fake[~world.is_training & world.of(render.REALS)].mean()
    found = np.mean([is_called_fake[~world.is_training & world.of(name)].mean() for name in fakes])
    return float(reals + found) / 2


@pytest.mark.parametrize("fakes", [TRAINING, UNSEEN], ids=["seen", "unseen"])
def test_colour_and_contrast_do_not_tell(world: World, fakes: list[str]) -> None:
    statistics = np.concatenate([world.pictures.mean(axis=(1, 2)), world.pictures.std(axis=(1, 2))], axis=1)
    assert _balanced_accuracy(world, statistics, fakes) < 0.60


@pytest.mark.parametrize("fakes", [TRAINING, UNSEEN], ids=["seen", "unseen"])
def test_file_size_and_format_do_not_tell(world: World, fakes: list[str]) -> None:
    size = np.log(world.sizes)
    features = np.stack([size * world.is_png, size * ~world.is_png, world.is_png], axis=1)
    assert _balanced_accuracy(world, features, fakes) < 0.60


@pytest.mark.parametrize("fakes", [TRAINING, UNSEEN], ids=["seen", "unseen"])
def test_captions_do_not_tell(world: World, fakes: list[str]) -> None:
    bags = np.array([[word in caption.split() for word in scenes.WORDS] for caption in world.captions], float)
    assert _balanced_accuracy(world, bags, fakes) < 0.60


def test_high_pass_energy_does_not_carry_over_to_unseen_generators(world: World) -> None:
    assert _balanced_accuracy(world, _high_pass(world.pictures), UNSEEN) < 0.75


def _high_pass(pictures_NHWC: NDArray[np.uint8]) -> NDArray[np.floating]:
    """(N, 12): log mean of absolute first and second differences, along rows and columns, per channel."""
    images = pictures_NHWC.astype(np.float32) / 255
    differences = [np.diff(images, n=order, axis=axis) for order in (1, 2) for axis in (1, 2)]
    return np.log(1e-4 + np.concatenate([np.abs(one).mean(axis=(1, 2)) for one in differences], axis=1))


def test_frozen_features_find_the_training_generators(world: World) -> None:
    """Otherwise no detector on this CLIP could work, and comparing them would mean nothing."""
    features = _clip_features(world.pictures)
    assert _balanced_accuracy(world, features, TRAINING) > 0.85
    assert _balanced_accuracy(world, features, UNSEEN) > 0.60


@torch.no_grad()
def _clip_features(pictures_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{ASSETS / 'clip'}")
    views = pretrain_pictures.mosaics(pictures_NHWC, np.random.default_rng(0))
    return torch.cat([model.eval().encode_image(batch) for batch in views.split(128)]).numpy()
