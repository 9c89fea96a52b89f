"""Nothing is tied to the tiny encoders: the papers' image tower, randomly initialised, trains a step, saves and scores."""

import shutil

import open_clip
import pytest
import torch
from conftest import conf_of, save_model, write_clip, write_noise_shards, write_texts

from nullscope import detectors, model_folder
from nullscope.detectors.base import Context
from nullscope.ops.patches import PatchParams
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import list_shards
from nullscope.tables.text import TextTable
from nullscope.training import Data, Training

CPU = torch.device("cpu")
PATCHES = PatchParams(patch_px=32, grid=7, fill="repeat")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of the CLIP: 1.2 GB, and as much work to make as the rest of the tests."""
    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    folder = tmp_path_factory.mktemp("vit_l_14") / "clip"
    yield write_clip(folder, config["vision_cfg"], width=config["embed_dim"], quick_gelu=True)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip_lora", "advanced_ns_net", "dgs_net"])  # plain, with captions in testing, in two phases
def test_vit_l_14_trains_a_step_and_scores(name, clip, tmp_path):
    ids = write_noise_shards(tmp_path / "shards", "patches", PATCHES, images=2, per_shard=2)
    write_texts(tmp_path / "text.parquet", ids, 768)
    params = conf_of(name)
    params |= {key: 1 for key in params if key.endswith("epochs")} | {"batch_size": 2}
    if "null_space" in params:
        params["null_space"] = {"scope": "global", "rank": 1, "energy": None}
    detector = detectors.build(name, params, Context({"clip": clip}, PATCHES), seed=0)
    shards = list_shards(tmp_path / "shards")
    data = Data(shards, TextTable.read(tmp_path / "text.parquet") if detector.needs_captions else None, 0)
    training = Training(detector, data, seed=0, device=CPU, scratch=tmp_path / "scratch")
    assert len(list(training.run())) == len(detector.phases())
    save_model(tmp_path / "model", detector, name, params, Context({"clip": clip}, PATCHES))
    loaded, _ = model_folder.load_unmerged(tmp_path / "model")
    rows = next(read_whole(shards, detector.transform, workers=0))
    text = data.text if detector.captions_at_inference else None
    assert logits(loaded, rows, CPU, text) == logits(detector, rows, CPU, text)
