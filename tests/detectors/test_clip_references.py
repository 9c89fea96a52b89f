"""Logits and losses of the authors' own code for detectors on CLIP ViT-L/14, with weights by a recipe (`../shared/references`).

They are not part of the project; without them these tests are skipped. One tower serves all, in a CLIP without a text half.
"""

import json

import open_clip
import pytest
import torch
from conftest import PATCHES, conf_of
from detectors.test_references import REFERENCES, batch_of, module, rows, sha256_1e6
from safetensors.torch import save_file

from nullscope import detectors
from nullscope.core.contracts import FAKE, REAL
from nullscope.detectors.base import Context
from nullscope.images.transforms import image_rng

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REFERENCES.is_dir(), reason="no ../shared/references")]

# preset, name among the references, flavour, agreement of the logits
PRESETS = [
    ("univfd_official", "univfd", "univfd_official", 1e-5),
    ("univfd_aigibench", "univfd", "univfd_aigibench", 1e-5),
    ("vib_net_official", "vibnet", "vibnet_official_mean", 1e-5),
    ("effort_official", "effort", "effort_official", 1e-5),
    ("effort_aigibench", "effort", "effort_aigibench", 1e-5),
    ("c2p_clip_official", "c2pclip", "c2pclip_official", 1e-5),
]
# preset, name among the references, table of one training step, the terms of the loss that it is of
TRAINED = [
    ("univfd_official", "univfd", "univfd_official_train", ["bce"]),
    ("vib_net_official", "vibnet", "vibnet_bce_mean_train", ["bce"]),
    ("vib_net_official", "vibnet", "vibnet_kl_train", ["kl"]),
    ("effort_official", "effort", "effort_official_train", ["bce"]),
    ("c2p_clip_official", "c2pclip", "c2pclip_official_train", ["bce"]),
]


@pytest.fixture(scope="module")
def images():
    """The images of the references by the names that the tables call them."""
    make = module("gen_images")
    return {f"gen/{name}.png": pixels for name, pixels in map(make.make, range(len(make.SIZES)))}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A CLIP ViT-L/14 with the tower of the recipe and hardly any text half, as a folder."""
    folder = tmp_path_factory.mktemp("recipe") / "clip"
    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    config["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    with torch.device("meta"):
        shapes = open_clip.model.CLIP(**config).state_dict()
    recipe = module("recipe")
    state = {name: torch.zeros(value.shape) for name, value in shapes.items()}
    state |= {name: recipe.clip_visual_value(name, shapes[name].shape) for name in shapes if name.startswith("visual.")}
    folder.mkdir()
    save_file(state, folder / "open_clip_model.safetensors")
    facts = {"model_cfg": config, "preprocess_cfg": {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    return Context({"clip": folder}, PATCHES)


def filled(preset, reference, context):
    """The detector of a preset with the weights of the recipe."""
    detector = detectors.build(preset, conf_of(preset), context, seed=0)
    recipe = module("recipe")
    published = {row["key"] for row in rows(f"{reference}_keys")}
    with torch.no_grad():
        for name, tensor in detector.kept_state():
            key = detector.official_name(name)
            if name.endswith(("_start", "basis_DK")) or ".lora_" in name:  # of Effort the published weight is the recipe's itself
                continue
            assert key in published, name
            named = key[key.index("vision_model") :] if "_residual" in key else key
            value = torch.from_numpy(recipe.value(named, tensor.shape))
            if key.endswith(("U_residual", "V_residual")):
                value = torch.from_numpy(recipe.normal(named, tensor.shape)) / 32
            if key.endswith("S_residual"):
                value = 1 + 0.1 * torch.from_numpy(recipe.normal(named, tensor.shape))
            tensor.copy_(value)
    return detector


def arrays_of(detector, image_HWC):
    seen = detector.transform(image_HWC, image_rng("00" * 32), training=False)
    return {name: torch.from_numpy(array)[None] for name, array in seen.items()}


@pytest.mark.parametrize(("preset", "reference", "flavour", "close"), PRESETS)
def test_logits_are_those_of_the_authors_code(preset, reference, flavour, close, images, context):
    detector = filled(preset, reference, context)
    detector.merge()
    detector.eval()
    compared = 0
    for row in rows(flavour):
        if row["image"] not in images:
            continue
        inputs = arrays_of(detector, images[row["image"]])
        assert sha256_1e6(detector.clip.pixels(inputs)[0]) == row["sha256_1e-6"], row["image"]
        with torch.no_grad():
            logit = detector(batch_of(inputs, [0.0])).item()
        assert logit == pytest.approx(float(row["logit"]), rel=close, abs=close), row["image"]
        compared += 1
    assert compared == 8


@pytest.mark.parametrize(("preset", "reference", "table", "terms"), TRAINED)
def test_the_loss_of_a_training_step_and_its_gradients(preset, reference, table, terms, images, context, monkeypatch):
    """On four images as in testing, without dropout; VIB-Net's of z = mu, its noise switched off."""
    detector = filled(preset, reference, context)
    expected = {row["quantity"]: row["value"] for row in rows(table)}
    made = [arrays_of(detector, image) for image in list(images.values())[:4]]
    inputs = {name: torch.cat([each[name] for each in made]) for name in made[0]}
    assert sha256_1e6(detector.clip.pixels(inputs)) == expected["input_sha256_1e-6"]
    if reference == "vibnet":
        detector.params = detector.params.model_copy(update={"beta": 1.0})
        monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    batch = batch_of(inputs, [float(label) for label in (REAL, FAKE, REAL, FAKE)])
    batch.text_BD = torch.randn(4, 768)
    losses = detector.eval().losses(batch)
    loss = sum(losses[term] for term in terms)
    loss.backward()
    assert loss.item() == pytest.approx(float(expected["loss"]), rel=1e-5)
    gradients = {detector.official_name(name): p.grad for name, p in detector.named_parameters()}
    compared = 0
    for quantity, value in expected.items():
        if quantity.startswith("grad_norm:"):
            norm = gradients[quantity.removeprefix("grad_norm:")].norm().item()
            assert norm == pytest.approx(float(value), rel=1e-3), quantity
            compared += 1
    assert compared
