"""The embedded world and its encoders keep their promises: bytes, laws, vocabulary, sizes, stock loaders."""

from __future__ import annotations

import csv
import functools
import io
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil
from trees import tree_sha256

import nullscope
from nullscope.core.config import ParamsError, validate
from nullscope.world import camera, generators, measure, pretrain_pictures, render, scenes
from nullscope.world.render import Job, WorldParams, list_jobs, write_world

ASSETS = Path(nullscope.__file__).parent / "assets"
SMALL = {
    "seed": 0,
    "train_reals": 6,
    "train_fakes_per_generator": 3,
    "train_generators": ["nearest", "transpose"],
    "val_reals": 5,
    "val_fakes_per_generator": 2,
    "test_reals": 4,
    "test_fakes_per_generator": 2,
    "test_generators": list(generators.GENERATORS),
    "shortcut": 0.0,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small") / "world"
    write_world(WorldParams(**SMALL), root, workers=1)
    return root


def _camera_pictures(count: int) -> tuple[list[Image.Image], list[str]]:
    """Camera pictures of test scenes, as the pipeline decodes them, and their true captions."""
    pictures, captions = [], []
    for number in range(count):
        rng = np.random.default_rng([99, number])
        scene = scenes.draw(rng)
        image = camera.to_uint8(camera.photograph(scenes.paint(scene, rng), rng))
        pictures.append(Image.fromarray(image))
        captions.append(scene.caption)
    return pictures, captions


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_bytes_do_not_depend_on_run_or_workers(world: Path, tmp_path: Path) -> None:
    write_world(WorldParams(**SMALL), tmp_path / "two", workers=2)
    assert tree_sha256(tmp_path / "two") == tree_sha256(world)


def test_another_seed_is_another_world(world: Path, tmp_path: Path) -> None:
    write_world(WorldParams(**SMALL | {"seed": 1}), tmp_path / "other", workers=1)
    assert tree_sha256(tmp_path / "other") != tree_sha256(world)


def test_more_pictures_of_one_kind_change_no_other(world: Path, tmp_path: Path) -> None:
    """Validation pictures least of all; and none of them is a picture of training or testing."""
    more = {"val_reals": 9, "val_fakes_per_generator": 4, "train_reals": 7, "test_generators": ["nearest", "spectral"]}
    write_world(WorldParams(**SMALL | more), tmp_path / "more", workers=1)
    before, after = ({file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*.*") if file.suffix != ".csv"}
                     for root in (world, tmp_path / "more"))  # fmt: skip
    kept = {
        name: data
        for name, data in before.items()
        if not name.startswith("test/") or name.split("/")[1] in ("camera", *more["test_generators"])
    }
    assert {name: after.get(name) for name in kept} == kept and len(kept) < len(before)
    assert len(set(after.values())) == len(after) == len(kept) + 4 + 2 * 2 + 1


def test_layout_and_counts(world: Path) -> None:
    files = [file.relative_to(world) for file in world.rglob("*.*") if file.name != render.CAPTIONS]
    counts = Counter(file.parent.as_posix() for file in files)
    expected = {"train/camera/0_real": 6, "test/camera/0_real": 4}
    expected |= {f"train/{name}/1_fake": 3 for name in SMALL["train_generators"]} | {"val/camera/0_real": 5}
    expected |= {f"val/{name}/1_fake": 2 for name in SMALL["train_generators"]}
    expected |= {f"test/{name}/1_fake": 2 for name in generators.GENERATORS}
    assert counts == expected
    assert {file.suffix for file in files} <= {".jpg", ".png"}
    assert {_open((world / file).read_bytes()).size for file in files} == {(scenes.SCENE_PX, scenes.SCENE_PX)}


def test_captions_cover_every_picture_in_the_vocabulary(world: Path) -> None:
    with open(world / render.CAPTIONS, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {
        file.relative_to(world).as_posix() for file in world.rglob("*.*") if file.name != render.CAPTIONS
    }
    assert {word for row in rows for word in row["caption"].split()} <= set(scenes.WORDS)


def test_a_killed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Job) -> None:
        raise RuntimeError("out of paint")

    monkeypatch.setattr(render, "render", fail)
    with pytest.raises(RuntimeError, match="out of paint"):
        write_world(WorldParams(**SMALL), tmp_path / "world", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_generator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match="nearest, transpose, bilinear"):
        validate("dataset.world", SMALL | {"test_generators": ["midjourney"]}, WorldParams)


@pytest.mark.slow
def test_formats_and_qualities_follow_one_law_for_real_and_fake() -> None:
    """Read back from the files: 150 of each maker, so 4 deviations of a share of 0.3 are 0.2 between two of them."""
    makers = {maker: [_stored(maker, number) for number in range(150)] for maker in ("camera", "transpose", "spectral")}
    png_share = [np.mean([suffix == "png" for suffix, _ in stored]) for stored in makers.values()]
    table_mean = [np.mean([mean for suffix, mean in stored if suffix == "jpg"]) for stored in makers.values()]
    assert np.ptp(png_share) < 0.2
    assert np.ptp(table_mean) < 0.15 * np.mean(table_mean), "JPEG qualities differ between real and fake"


def _stored(maker: str, number: int) -> tuple[str, float]:
    """Suffix of a picture's file and the mean of its JPEG quantisation table, which falls with quality."""
    picture = render.render(Job(0, "test", maker, number, 0.0))
    suffix = picture.path.rpartition(".")[2]
    tables = _open(picture.data).quantization if suffix == "jpg" else {0: [0]}
    return suffix, float(np.mean(tables[0]))


def test_noise_has_the_same_amount_and_spectrum_for_real_and_fake() -> None:
    """On a grey scene the lens and the decoder do nothing: what is left is noise of the level that the seed drew."""
    grey = np.full((scenes.SCENE_PX, scenes.SCENE_PX, 3), 0.5, np.float32)
    real, fake = (
        _mean_spectrum([make(grey, np.random.default_rng([7, number])) - grey for number in range(40)])
        for make in (camera.photograph, functools.partial(generators.generate, "bilinear"))
    )
    np.testing.assert_allclose(real, fake, rtol=0.06)


def _mean_spectrum(noises: list[NDArray[np.float32]]) -> NDArray[np.floating]:
    """(4, 4, 3): mean power in a coarse grid of frequencies, per channel."""
    power = np.mean([np.abs(np.fft.fft2(noise, axes=(0, 1))[:64, :64]) ** 2 for noise in noises], axis=0)
    return power.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("name", generators.GENERATORS)
def test_a_generator_keeps_the_scene_and_its_mean(name: str) -> None:
    rng = np.random.default_rng(3)
    scene = scenes.paint(scenes.draw(rng), rng)
    decoded = generators.GENERATORS[name](scene)
    assert decoded.shape == scene.shape and decoded.dtype == np.float32
    np.testing.assert_allclose(decoded.mean(axis=(0, 1)), scene.mean(axis=(0, 1)), atol=0.004)
    assert 0.002 < np.abs(decoded - scene).mean() < 0.05, "decoded to the scene itself, or to something else"


def test_the_shortcut_ties_colour_to_the_label_in_training_only() -> None:
    params = WorldParams(**SMALL | {"shortcut": 1.0, "test_reals": 60})
    colours: dict[tuple[str, bool], set[str]] = {}
    for job in list_jobs(params):
        colour = render.render(job).caption.split()[2]
        colours.setdefault((job.split, job.maker == render.REALS), set()).add(colour)
    for split in ("train", "val"):
        assert not colours[split, True] & colours[split, False]
    assert colours["test", True] == set(scenes.COLOURS)


def test_pretraining_scenes_are_disjoint_from_every_world() -> None:
    """Seeds are (number, checksum of a name, index): the names differ, so no scene can be drawn from the same state."""
    makers = {f"{job.split}/{job.maker}" for job in list_jobs(WorldParams(**SMALL))}
    pretraining = {"pretrain", "held-out"}
    assert not {zlib.crc32(name.encode()) for name in makers} & {zlib.crc32(name.encode()) for name in pretraining}
    assert "generators" not in vars(pretrain_pictures), "the encoders must never see a generator's picture"


def test_weights_are_small_and_not_pickled() -> None:
    files = [file for folder in ("clip", "blip") for file in (ASSETS / folder).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}


def test_the_clip_loads_with_open_clip_and_its_tokeniser_ends_captions() -> None:
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{ASSETS / 'clip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{ASSETS / 'clip'}")
    caption = scenes.draw(np.random.default_rng(0)).caption
    tokens_1L = tokenizer([caption])
    assert tokens_1L.shape == (1, model.context_length)
    assert tokenizer.tokenizer.decode(tokens_1L[0], skip_special_tokens=True) == caption
    end = tokenizer.tokenizer.eos_token_id
    assert end == int(tokens_1L.max()), "open_clip pools where the token id is largest: that must be the end"
    short_2L = tokenizer(["a red ring", "a red ring"])
    padded = torch.cat([short_2L[:, :6], torch.zeros(2, 6, dtype=torch.long)], dim=1)
    torch.testing.assert_close(model.encode_text(short_2L), model.encode_text(padded), msg="padding changes the text")


@torch.no_grad()
def test_the_clip_finds_the_caption_of_a_picture() -> None:
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{ASSETS / 'clip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{ASSETS / 'clip'}")
    pictures, captions = _camera_pictures(60)
    views = pretrain_pictures.crops(np.stack([np.asarray(picture) for picture in pictures]), (8, 8))
    image_ND = model.encode_image(views, normalize=True)
    known = measure.all_captions()
    nearest = [known[number] for number in (image_ND @ model.encode_text(tokenizer(known), normalize=True).T).argmax(dim=1)]
    exact = measure.exactness(nearest, captions)
    assert min(exact["colour"], exact["ground"], exact["background"]) > 0.8, exact


@torch.no_grad()
@pytest.mark.parametrize("maker", [render.REALS, "transpose", "quantised"])
def test_the_blip_captions_real_and_fake_pictures_exactly(maker: str) -> None:
    model = BlipForConditionalGeneration.from_pretrained(ASSETS / "blip").eval()
    processor = BlipImageProcessorPil.from_pretrained(ASSETS / "blip")
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "blip")
    made = [render.render(Job(0, "test", maker, number, 0.0)) for number in range(60)]
    pixels = processor(images=[_open(picture.data) for picture in made], return_tensors="pt")
    found = tokenizer.batch_decode(model.generate(**pixels, max_new_tokens=12, do_sample=False), skip_special_tokens=True)
    assert measure.exactness(found, [picture.caption for picture in made])["whole"] > 0.8
