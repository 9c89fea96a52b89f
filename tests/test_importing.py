"""`nullscope import-weights`: a published checkpoint becomes a model folder, and nothing else does."""

import pickle
import re

import pytest
import torch
from click.testing import CliRunner
from conftest import PATCHES, ROOT, conf_of, write_convolutional_clip
from images.bad_images import photo, save
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from nullscope import detectors
from nullscope.backbones.published import hub_name
from nullscope.cli import main
from nullscope.core.files import sha256
from nullscope.detectors.base import Context
from nullscope.detectors.effort import ResidualLinear
from nullscope.importing import preset_config
from nullscope.model_facts import read_facts
from nullscope.model_folder import load_unmerged
from nullscope.prediction import Judge
from nullscope.records import licences
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole

PRESETS = {
    "cnn_spot": "cnn_spot_official",
    "npr": "npr_official",
    "ladeda": "ladeda_official",
    "tiny_ladeda": "tiny_ladeda_official",
    "safe": "safe_official",
    "freqnet": "freqnet_aigibench",
    "dffreq": "dffreq_aigibench",
}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Where the presets lie."""
    monkeypatch.chdir(ROOT)


def published(name, seed=5):
    """The state of a network as its authors would have saved it."""
    detector = detectors.build(name, conf_of(name), Context({}, PATCHES), seed=seed)
    return detector, {detector.official_name(ours): tensor.detach().clone() for ours, tensor in detector.kept_state()}


def run(method, *arguments):
    named = ["--param", "residual=npr"] if method == "tiny_ladeda" and "--param" not in arguments else []
    return CliRunner().invoke(main, ["import-weights", method, *map(str, arguments), *named])


@pytest.mark.parametrize("method", PRESETS)
def test_what_is_imported_is_the_published_network(method, tmp_path):
    """All its tensors, bit by bit, and the hash of the file; a folder like others, which scores."""
    detector, state = published(PRESETS[method])
    torch.save(state, tmp_path / "file.pth")
    done = run(method, tmp_path / "file.pth", "--out", tmp_path / "model")
    assert done.exit_code == 0, done.output
    loaded, facts = load_unmerged(tmp_path / "model")
    assert (facts.detector, facts.weights, facts.checkpoint) == (PRESETS[method], "official", sha256(tmp_path / "file.pth"))
    kept = dict(loaded.kept_state())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in detector.kept_state())
    judge = Judge(tmp_path / "model", "cpu")
    for size in ((70, 300), (1, 500)):
        verdict = judge.predict(save(photo(0, size), "PNG"))
        assert verdict.logit is not None and isinstance(verdict.fake, bool), verdict.refused


ON_CLIP = {name: f"{name}_official" for name in ("univfd", "vib_net", "effort", "c2p_clip")}


def published_on_clip(method, small, seed=5):
    """A trained detector on CLIP, and its state as its authors would have saved it, the frozen tower with it."""
    detector = detectors.build(ON_CLIP[method], conf_of(ON_CLIP[method]), small.context, seed=seed)
    detector.begin(small.folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in detector.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    state, expected = dict(detector.official_frozen()), dict(detector.named_parameters())
    for ours, tensor in detector.kept_state():
        if ours in expected and ".lora_" not in ours:
            state[detector.official_name(ours)] = tensor
    for path, layer in detector.clip.tower.named_modules():
        if isinstance(layer, ResidualLinear):  # Effort keeps the weight without its last directions
            published = f"model.{hub_name(f'{path}.weight')}"
            state[f"{published}_main"] = state.pop(published) - (layer.u_start * layer.s_start) @ layer.v_start
        elif isinstance(layer, LoraLayer):  # C2P-CLIP saves merged weights
            published = f"model.{hub_name(f'{path}.weight')}"
            state[published] = layer.get_base_layer().weight + layer.get_delta_weight("default")
    state = {key: tensor.detach().clone() for key, tensor in state.items()}
    return detector, state | {"model.logit_scale": torch.zeros(())}


@pytest.mark.parametrize("method", ON_CLIP)
def test_a_checkpoint_that_carries_its_tower_is_compared_and_not_stored_twice(method, small, tmp_path):
    """The logits are those of the detector that was saved; the folder holds the tower once, as `clip`."""
    detector, state = published_on_clip(method, small)
    torch.save(state, tmp_path / "file.pth")
    clip = f"clip={small.context.backbone('clip')}"
    done = run(method, tmp_path / "file.pth", "--backbone", clip, "--out", tmp_path / "model")
    assert done.exit_code == 0, done.output
    loaded, facts = load_unmerged(tmp_path / "model")
    assert facts.weights == "official" and set(facts.backbones) == {"clip"}
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    assert not frozen & load_file(tmp_path / "model/weights.safetensors").keys() and frozen
    rows = next(iter(read_whole(small.shards("images"), detector.transform, workers=0)))
    before = logits(detector.eval(), rows, torch.device("cpu"))
    assert logits(loaded.eval(), rows, torch.device("cpu")) == pytest.approx(before, abs=1e-5)
    assert Judge(tmp_path / "model", "cpu").predict(save(photo(0, (70, 300)), "PNG")).logit is not None


@pytest.mark.parametrize("method", ON_CLIP)
@pytest.mark.parametrize("part", ["ln_post.weight|post_layernorm.weight", "attn.in_proj_weight|q_proj.weight(_main)?"])
def test_a_checkpoint_of_another_tower_is_refused(method, part, small, tmp_path):
    """Not only where it is frozen: an adapter of rank six makes no other matrix out of a weight."""
    _, state = published_on_clip(method, small)
    name = next(name for name in state if re.search(rf"({part})$", name) and "transformer.resblocks.0" not in name[:24])
    torch.save({**state, name: 9 * torch.randn_like(state[name])}, tmp_path / "file.pth")
    clip = f"clip={small.context.backbone('clip')}"
    done = run(method, tmp_path / "file.pth", "--backbone", clip, "--out", tmp_path / "model")
    assert done.exit_code == 2 and "--backbone" in done.output and "Traceback" not in done.output
    assert not (tmp_path / "model").exists()


def test_aides_checkpoint_carries_its_convnext_which_is_not_stored_twice(small, tmp_path):
    """With two classifiers of ImageNet's classes that nothing uses, and filters and a projection that never train."""
    context = Context({"convnext": write_convolutional_clip(tmp_path / "convnext")}, PATCHES)
    detector = detectors.build("aide_official", conf_of("aide_official"), context, seed=5)
    kept = dict(detector.kept_state())
    state = {detector.official_name(name): tensor for name, tensor in kept.items()} | detector.official_frozen()
    assert {"hpf.hpf.weight", "convnext_proj.0.weight", "model_min.bn1.running_var", "fc.fc2.bias"} <= state.keys()
    state |= {f"model_{which}.fc.weight": torch.zeros(10, 2048) for which in ("min", "max")}
    torch.save({"model": state, "epoch": 3}, tmp_path / "file.pth")
    arguments = (tmp_path / "file.pth", "--backbone", f"convnext={tmp_path / 'convnext'}", "--out", tmp_path / "model")
    done = run("aide", *arguments)
    assert done.exit_code == 0, done.output
    loaded, facts = load_unmerged(tmp_path / "model")
    assert set(facts.backbones) == {"convnext"}
    assert all(torch.equal(tensor, kept[name]) for name, tensor in loaded.kept_state())
    judge = Judge(tmp_path / "model", "cpu")
    assert judge.predict(save(photo(0, (70, 60)), "PNG")).logit is not None
    assert "32" in judge.predict(save(photo(0, (20, 60)), "PNG")).refused


def test_a_part_of_a_tower_is_no_tower(small, tmp_path):
    _, state = published_on_clip("univfd", small)
    del state["model.visual.proj"]
    torch.save(state, tmp_path / "file.pth")
    done = run("univfd", tmp_path / "file.pth", "--backbone", f"clip={small.context.backbone('clip')}", "--out", tmp_path / "m")
    assert done.exit_code == 2 and "1 are missing (model.visual.proj)" in done.output


def test_the_bare_layer_of_univfd_is_a_checkpoint_too(small, tmp_path):
    """As its authors released it: ``weight`` and ``bias``."""
    detector, state = published_on_clip("univfd", small)
    torch.save({"weight": state["fc.weight"], "bias": state["fc.bias"]}, tmp_path / "file.pth")
    clip = f"clip={small.context.backbone('clip')}"
    assert run("univfd", tmp_path / "file.pth", "--backbone", clip, "--out", tmp_path / "model").exit_code == 0
    assert torch.equal(load_unmerged(tmp_path / "model")[0].head.weight, detector.head.weight)


@pytest.mark.parametrize(
    ("words", "said"),
    [("clip", "expected NAME=FOLDER"), ("clip=nowhere", "no folder nowhere"), ("blip=.", "no backbone 'clip'; there are: ")],
)
def test_a_backbone_is_named_by_a_folder(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr("nullscope.importing.ENCODERS", tmp_path / "none")
    torch.save({"weight": torch.zeros(1, 8), "bias": torch.zeros(1)}, tmp_path / "file.pth")
    done = run("univfd", tmp_path / "file.pth", "--backbone", words, "--out", tmp_path / "model")
    assert done.exit_code == 2 and said in done.output


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: {"model": state, "epoch": 3}, "without the key `model`"),
        (lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, "and the prefix `module.`"),
    ],
)
def test_wrappers_are_taken_off_and_named(wrap, said, tmp_path):
    _, state = published("tiny_ladeda_official")
    torch.save(wrap(state), tmp_path / "file.pth")
    done = run("tiny_ladeda", tmp_path / "file.pth", "--param", "residual=x_grad", "--out", tmp_path / "model")
    assert done.exit_code == 0 and said in done.output
    assert read_facts(tmp_path / "model").params["residual"] == "x_grad"


def test_constants_of_a_checkpoint_are_passed_over(tmp_path):
    """Haar's filters, which DFFreq's holds twice."""
    _, state = published("dffreq_aigibench")
    for name in ("dwt_transform.h0_col", "FreqLCBlock.idwt_transform.g1_row"):
        state[name] = torch.ones(1, 1, 2, 1)
    torch.save(state, tmp_path / "file.pth")
    assert run("dffreq", tmp_path / "file.pth", "--out", tmp_path / "model").exit_code == 0


def test_a_known_file_is_named_with_its_terms(tmp_path, monkeypatch):
    _, state = published("tiny_ladeda_official")
    torch.save(state, tmp_path / "file.pth")
    digest = sha256(tmp_path / "file.pth")
    row = next(row for row in licences.weights() if row.name == "tiny_ladeda_forensynths")
    mine = row.__class__(**{**vars(row), "sha256_begins": digest[:6]})
    monkeypatch.setattr(licences, "weights", lambda: (mine,))
    done = run("tiny_ladeda", tmp_path / "file.pth", "--out", tmp_path / "model")
    assert f"SHA-256 {digest}: tiny_ladeda_forensynths, trained on ForenSynths; Yissum" in done.output
    assert read_facts(tmp_path / "model").dataset == "ForenSynths"


class Trap:
    """What a pickle can do while it is read."""

    def __reduce__(self):
        return (open, ("trapped", "w"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda state: {name: tensor for name, tensor in state.items() if name != "fc.bias"}, r"1 are missing (fc.bias)"),
        (lambda state: {**state, "more": torch.zeros(1)}, "and 1 others are there (more)"),
        (lambda state: {**state, "fc.weight": torch.zeros(1, 9)}, "expected the shape (1, 8), found (1, 9)"),
        (lambda state: {**state, "fc.bias": torch.tensor([float("nan")])}, "weights are no numbers"),
        (lambda state: {"epoch": 3}, "expected tensors by name, or one of model, state_dict"),
        (lambda state: {}, "expected tensors by name, found dict of 0"),
        (lambda state: [1, 2], "expected tensors by name, found list of 2"),
        (lambda state: b"<!DOCTYPE html><html>sign in", "it is a web page"),
        (lambda state: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (lambda state: b"", "cannot be read as a checkpoint"),
        (lambda state: b"PK\3\4 cut off", "cannot be read as a checkpoint"),
        (lambda state: pickle.dumps(Trap()), "cannot be read as a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_of_the_detector_is_refused_with_a_sentence(content, said, tmp_path, monkeypatch):
    _, state = published("tiny_ladeda_official")
    made = content(state)
    if isinstance(made, bytes):
        (tmp_path / "file.pth").write_bytes(made)
    else:
        torch.save(made, tmp_path / "file.pth")
    done = run("tiny_ladeda", tmp_path / "file.pth", "--out", tmp_path / "model")
    assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output
    assert not (tmp_path / "model").exists() and not (ROOT / "trapped").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nrp", "x.pth"], "no detector 'nrp'"),
        (["npr", "nowhere.pth"], "nowhere.pth: no such file"),
        (["freqnet", "x.pth", "--preset", "official"], "freqnet has no preset official; known: aigibench"),
        (["npr", "x.pth", "--param", "widht=3"], "widht=3: Could not override"),
        (["dgs_net", "x.pth"], "dgs_net: its authors released no checkpoint that is read here"),
        (["linear_probe", "x.pth"], "linear_probe has no preset of its authors"),
        (["tiny_ladeda", "x.pth", "--param", "width=8"], "do not record residual; name --param residual=VALUE: the running"),
    ],
)
def test_what_cannot_be_asked_for_is_said(arguments, said, tmp_path):
    done = run(*arguments, "--out", tmp_path / "model")
    assert done.exit_code == 2 and said in done.output


def test_outside_of_a_project_the_presets_are_the_packages(tmp_path, monkeypatch):
    expected = preset_config("npr", None)
    monkeypatch.chdir(tmp_path)
    assert preset_config("npr", None) == expected
