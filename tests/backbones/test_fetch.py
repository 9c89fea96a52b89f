"""Where the frozen encoders come from. The hub is its own client on a cache that the test fills: what a download leaves there."""

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration

from nullscope.backbones.clip import clip_facts, load_image_tower
from nullscope.backbones.fetch import (
    EMBEDDED,
    BlipSource,
    ClipSource,
    EncoderParams,
    _clip_config,
    fetch_blip,
    fetch_clip,
    source_name,
)
from nullscope.core.config import validate

ASSETS = Path(str(files("nullscope") / "assets"))
REVISION = "0123456789abcdef0123456789abcdef01234567"


def clip_source(repository: str, architecture: str = "ViT-B-32-quickgelu") -> ClipSource:
    return ClipSource(repository=repository, revision=REVISION, architecture=architecture)


def fetch_offline(script: str, cache: Path, out: Path) -> subprocess.CompletedProcess:
    code = f"import sys; from pathlib import Path; from nullscope.backbones.fetch import *; {script}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HF_HOME": str(cache)}
    return subprocess.run([sys.executable, "-c", code, str(out)], env=environment, capture_output=True, text=True)


def snapshot(cache: Path, repository: str) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    return folder


def test_embedded_encoders_are_those_of_the_package(tmp_path):
    fetch_clip(clip_source(EMBEDDED), tmp_path / "clip")
    fetch_blip(BlipSource(repository=EMBEDDED, revision="1"), tmp_path / "blip")
    for kind, weights in (("clip", "open_clip_model.safetensors"), ("blip", "model.safetensors")):
        assert (tmp_path / kind / weights).read_bytes() == (ASSETS / kind / weights).read_bytes()
    assert source_name(tmp_path / "blip") == "embedded@1"
    assert load_image_tower(tmp_path / "clip")(torch.zeros(1, 3, 112, 112)).shape == (1, clip_facts(tmp_path / "clip").width)


def test_a_folder_of_the_users_is_copied(tmp_path):
    shutil.copytree(ASSETS / "clip", tmp_path / "mine")
    fetch_clip(clip_source(str(tmp_path / "mine")), tmp_path / "clip")
    assert clip_facts(tmp_path / "clip") == clip_facts(ASSETS / "clip")


@pytest.mark.slow
def test_clip_of_the_hub_gets_the_configuration_of_its_architecture(tmp_path):
    weights = {"logit_scale": torch.tensor(1.0)}
    save_file(weights, snapshot(tmp_path / "cache", "someone/clip.openai") / "open_clip_model.safetensors")
    source = clip_source("someone/clip.openai").model_dump()
    done = fetch_offline(f"fetch_clip(ClipSource(**{source!r}), Path(sys.argv[1]))", tmp_path / "cache", tmp_path / "clip")
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "clip/open_clip_model.safetensors") == weights
    config = json.loads((tmp_path / "clip/open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True and config["preprocess_cfg"]["mean"][0] == pytest.approx(0.48145466)
    assert clip_facts(tmp_path / "clip").image_px == 224


def test_statistics_and_activation_are_those_of_the_weights():
    """One architecture, other weights: LAION's ViT-L/14 was trained on images on [-1, 1], MetaCLIP's with QuickGELU."""
    laion = _clip_config(clip_source("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "ViT-L-14"))
    assert laion["preprocess_cfg"] == {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assert _clip_config(clip_source("someone/else", "ViT-L-14"))["preprocess_cfg"]["mean"][0] == pytest.approx(0.48145466)
    for repository in ("timm/vit_base_patch16_clip_224.metaclip_400m", "timm/vit_base_patch16_clip_224.openai"):
        with pytest.raises(ValueError, match="needs QuickGELU, and 'ViT-B-16' has none; use 'ViT-B-16-quickgelu'"):
            _clip_config(clip_source(repository, "ViT-B-16"))


@pytest.mark.parametrize("name", ["vit_l_14", "vit_b_16", "vit_l_14_336", "metaclip_b_16"])
def test_mosaics_of_every_encoder_have_the_side_of_its_clip(name):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        composed = compose("config", overrides=[f"encoder={name}"])
    params = validate("encoder", OmegaConf.to_container(composed.encoder), EncoderParams)
    vision = _clip_config(params.clip)["model_cfg"]["vision_cfg"]
    assert composed.patches.grid * params.patch_px == vision["image_size"]
    assert "timm_model_name" not in vision


@pytest.mark.slow
def test_blip_of_the_hub_is_read_without_unpickling_and_written_as_safetensors(tmp_path):
    """Salesforce's repository holds a pickle only: ours is made the same way."""
    folder = snapshot(tmp_path / "cache", "someone/blip")
    for file in (ASSETS / "blip").iterdir():
        if file.suffix == ".json":
            shutil.copy(file, folder)
    model = BlipForConditionalGeneration.from_pretrained(ASSETS / "blip")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    script = f"fetch_blip(BlipSource(repository='someone/blip', revision='{REVISION}'), Path(sys.argv[1]))"
    done = fetch_offline(script, tmp_path / "cache", tmp_path / "blip")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "blip").glob("*.bin"))
    again = BlipForConditionalGeneration.from_pretrained(tmp_path / "blip", local_files_only=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.slow
def test_what_cannot_be_fetched_leaves_the_old_folder_and_says_what_to_do(tmp_path):
    fetch_clip(clip_source(EMBEDDED), tmp_path / "clip")
    source = clip_source("someone/absent").model_dump()
    done = fetch_offline(f"fetch_clip(ClipSource(**{source!r}), Path(sys.argv[1]))", tmp_path / "cache", tmp_path / "clip")
    assert done.returncode == 1 and "someone/absent" in done.stderr and "encoder=embedded" in done.stderr
    assert source_name(tmp_path / "clip").startswith("embedded@")


@pytest.mark.parametrize(("architecture", "message"), [("ViT-L-14", "use 'ViT-L-14-quickgelu'"), ("ViT-L-15", "is unknown")])
def test_a_wrong_architecture_is_an_error(tmp_path, architecture, message):
    with pytest.raises(ValueError, match=message):
        fetch_clip(clip_source("timm/vit_large_patch14_clip_224.openai", architecture), tmp_path / "clip")
