"""The folder of a trained detector: what it holds, and what is said where it is not whole."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, conf_of, noise_image, save_model
from safetensors.torch import load_file, save_file

from nullscope import detectors, model_folder
from nullscope.cli import main
from nullscope.core.files import sha256
from nullscope.detectors.base import Context
from nullscope.model_facts import FORMAT, read_facts, trained_on
from nullscope.prediction import Judge
from nullscope.scoring import score
from nullscope.shards.loading import read_whole

CPU = torch.device("cpu")


def trained(name, small, **changes):
    """A detector whose weights are not those of a fresh one."""
    detector = detectors.build(name, {**conf_of(name), **changes}, small.context, seed=0)
    with torch.no_grad():
        for parameter in detector.trainable():
            parameter.normal_(std=0.05)
    return detector


@pytest.fixture
def folder(small, tmp_path):
    return save_model(tmp_path / "model", trained("clip_lora", small), "clip_lora", conf_of("clip_lora"), small.context)


def edit(folder, **changes):
    """Change keys of detector.json; None takes one out."""
    path = folder / "detector.json"
    facts = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def as_pipe(path):
    """Put a named pipe in the place of a file: opened, it would hang."""
    path.unlink()
    os.mkfifo(path)


def replace(path, content):
    """Give a file other bytes; the hard links to it keep theirs."""
    path.unlink()
    path.write_bytes(content)


def test_the_frozen_backbones_stand_in_it_by_name_and_hash(folder, small):
    """Of every file, as another program would compute it."""
    clip = small.context.backbone("clip")
    found = json.loads((folder / "detector.json").read_text())["backbones"]
    expected = {file.name: {"bytes": len(file.read_bytes()), "sha256": sha256(file)} for file in clip.iterdir()}
    assert found == {"clip": expected} and len(expected) > 1
    assert {file.name for file in folder.iterdir()} == {"clip", "detector.json", "weights.safetensors"}


def test_a_detector_without_a_backbone_has_none_in_its_folder(small, small_resnet, tmp_path):
    detector = trained(small_resnet, small)
    folder = save_model(tmp_path / "model", detector, small_resnet, conf_of(small_resnet), small.context)
    assert {file.name for file in folder.iterdir()} == {"detector.json", "weights.safetensors"}
    loaded, facts = model_folder.load(folder, CPU)
    assert facts.backbones == {} and type(loaded) is type(detector)


def test_what_was_saved_loads_and_saves_as_the_same_bytes(folder, small, tmp_path):
    detector, facts = model_folder.load_unmerged(folder)
    model_folder.save(tmp_path / "again", detector, facts, small.context.backbones, history=[])
    for name in ("weights.safetensors", "detector.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "again/history.csv").is_file() and not (folder / "history.csv").exists()


def test_a_merged_detector_is_not_saved_without_its_adapters(folder, small, tmp_path):
    detector, facts = model_folder.load(folder, CPU)
    with pytest.raises(ValueError, match="adapters were merged"):
        model_folder.save(tmp_path / "again", detector, facts, small.context.backbones)
    assert not (tmp_path / "again").exists()


def test_its_facts_are_read_without_torch(folder):
    """Tracking, the report and the command line ask for them, and torch takes seconds to import."""
    script = (
        "import sys; from nullscope.model_facts import read_facts\n"
        "print(read_facts(sys.argv[1]).detector, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["clip_lora", "False"]


def test_official_weights_say_so(folder):
    edit(folder, weights="official")
    assert read_facts(folder).weights == "official"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 4}, f"expected a model folder of format {FORMAT}, found 4: another version"),
        ({"max_pixels": 0}, "max_pixels: input should be greater than 0"),
        ({"images": -1}, "images: input should be greater than or equal to 0"),
        ({"detector": "../clip_lora"}, "no detector '../clip_lora'"),
        ({"detector": "dgs_net"}, "teacher_epochs: field required"),
        ({"patches": {"patch_px": 10**9, "grid": 4, "fill": "repeat"}}, "CLIP expects images of"),
        ({"backbones": {"../clip": {}}}, "'../clip' is no name of a backbone"),
        ({"backbones": {"clip": {"../x": {"bytes": 1, "sha256": ""}}}}, "'../x' is no name of a backbone or of its file"),
        ({"params": {**conf_of("clip_lora"), "method": ["x"]}}, r"no detector \['x'\]"),
        ({"params": {**conf_of("clip_lora"), "lora": {**conf_of("clip_lora")["lora"], "rank": 2**40}}}, "can.t allocate memory"),
        ({"format": None}, f"of format {FORMAT}, found None"),
        ({"weights": "borrowed"}, "'retrained' or 'official', found 'borrowed'"),
        ({"seed": "0"}, "seed: input should be a valid integer, found '0'"),
        ({"dataset": None}, "missing: dataset; unknown: none"),
        ({"dataset": None, "data_set": "x"}, "missing: dataset; unknown: data_set"),
        ({"backbones": {}}, "clip"),
        ({"backbones": {"clip": {"open_clip_config.json": {"bytes": 1}}}}, "sha256: field required"),
        ({"detector": "clip_loar"}, "did you mean `?'?clip_lora"),
        ({"params": {}}, "lora: field required"),
    ],
)
def test_facts_that_are_not_right_end_in_a_sentence(folder, change, said):
    edit(folder, **change)
    with pytest.raises(ValueError, match=said) as error:
        model_folder.load(folder, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "detector.json").unlink(), "is not a trained detector .*No such file.*expected a folder such as"),
        (lambda f: (f / "detector.json").write_text('{"format"'), "detector.json is not JSON .*cut off"),
        (lambda f: (f / "detector.json").write_text("[]"), "found None"),
        (lambda f: replace(f / "detector.json", b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
        (lambda f: replace(f / "detector.json", '{"é": 1}'.encode("latin-1")), "detector.json is not JSON"),
        (lambda f: as_pipe(f / "detector.json"), "detector.json: not a file"),
        (lambda f: as_pipe(f / "weights.safetensors"), "weights.safetensors cannot be read"),
        (lambda f: as_pipe(f / "clip/open_clip_config.json"), "open_clip_config.json is missing"),
        (lambda f: replace(f / "weights.safetensors", LFS_POINTER), "missing or cut off"),
        (lambda f: replace(f / "weights.safetensors", b"\x80\x04K\x01."), "missing or cut off"),  # a pickle
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors cannot be read"),
        (lambda f: replace(f / "weights.safetensors", (f / "weights.safetensors").read_bytes()[:-9]), "missing or cut off"),
        (lambda f: replace(f / "weights.safetensors", b""), "missing or cut off"),
        (lambda f: (f / "clip/open_clip_config.json").unlink(), "clip/open_clip_config.json is missing"),
        (lambda f: replace(f / "clip/open_clip_config.json", b"{"), "expected [0-9]+ bytes, found 1"),
        (
            lambda f: replace(f / "clip/source.json", (f / "clip/source.json").read_bytes().swapcase()),
            "expected the SHA-256 .*this is another backbone",
        ),
    ],
)
def test_a_folder_that_is_not_whole_ends_in_a_sentence_with_a_remedy(folder, damage, said):
    damage(folder)
    with pytest.raises(ValueError, match=said) as error:
        model_folder.load(folder, CPU)
    assert any(word in str(error.value) for word in ("dvc", "expected a folder such as")) and "\n" not in str(error.value)


def test_hashes_of_large_files_are_compared_on_request(folder, monkeypatch):
    """By default their sizes alone are: nobody waits seconds at every loading."""
    monkeypatch.setattr("nullscope.model_facts.ALWAYS_VERIFIED", 0)
    path = folder / "clip/source.json"
    replace(path, path.read_bytes().swapcase())
    model_folder.load(folder, CPU)
    with pytest.raises(ValueError, match="this is another backbone"):
        model_folder.load(folder, CPU, verify=True)


def test_weights_of_another_shape_are_refused(folder, small, tmp_path):
    """A parameter of one number would be spread over all of its place."""
    detector, _ = model_folder.load_unmerged(folder)
    weights = model_folder.kept(detector)
    with pytest.raises(ValueError, match=r"head.bias: expected the shape \(1,\), found \(\)"):
        model_folder.restore(detector, {**weights, "head.bias": torch.tensor(0.0)})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("head.weight", lambda t: t * float("nan"), r"head.weight: \d+ of \d+ weights are no numbers"),
        ("head.bias", lambda t: t + float("inf"), "head.bias: 1 of 1 weights are no numbers"),
        ("head.weight", lambda t: t[:, :2].clone(), r"head.weight: expected the shape \(1, 24\), found \(1, 2\)"),
        ("head.weight", lambda t: t.half(), "head.weight: expected torch.float32, found torch.float16"),
        ("null_space.basis_DK", lambda t: torch.zeros(7, 3), r"expected the shape \(24, 0\), found \(7, 3\)"),
        ("head.bias", lambda t: None, "expected and found differ in head.bias"),
        ("another", lambda t: torch.zeros(2), "expected and found differ in another"),
    ],
)
def test_weights_of_another_detector_or_without_numbers_are_refused(folder, name, change, said):
    """By the detector that loads them; a comparison with no number is false, so every image would be real."""
    weights = load_file(folder / "weights.safetensors")
    changed = {**weights, name: change(weights.get(name))}
    (folder / "weights.safetensors").unlink()
    save_file({key: tensor for key, tensor in changed.items() if tensor is not None}, folder / "weights.safetensors")
    with pytest.raises(ValueError, match=said):
        model_folder.load(folder, CPU)


def test_weights_without_numbers_are_not_saved(small, tmp_path):
    detector = trained("clip_lora", small)
    with torch.no_grad():
        detector.head.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="weights are no numbers"):
        save_model(tmp_path / "model", detector, "clip_lora", conf_of("clip_lora"), small.context)
    assert not (tmp_path / "model").exists()


def test_a_logit_that_is_no_number_is_an_error_and_not_a_score(small):
    """Weights that are numbers, and whose products are none."""
    detector = trained("clip_lora", small)
    with torch.no_grad():
        detector.head.weight.fill_(3e38)
    rows = next(iter(read_whole(small.shards("patches"), detector.transform, workers=0)))
    with pytest.raises(ValueError, match=r"logit of image [0-9a-f]{64} is (nan|-?inf) \(\d+ of \d+ are no numbers\)"):
        score(detector, rows, CPU)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"dataset": "world", "images": 800, "rendered": True}, "trained on `world`: 800 rendered scenes of the embedded world"),
        ({"dataset": "aigibench", "images": 288_000}, "trained on `aigibench`: 288,000 images"),
        ({}, "it is not known what it was trained on"),
    ],
)
def test_a_model_says_what_it_was_trained_on(folder, facts, said):
    edit(folder, **facts)
    assert trained_on(read_facts(folder)) == said


def test_a_detector_of_rendered_scenes_gives_scores_and_no_verdicts(folder):
    image = noise_image(0, 0)
    seen = Judge(folder, "cpu").predict(image)
    edit(folder, dataset="world", images=8, rendered=True)
    scored, told = Judge(folder, "cpu").predict(image), Judge(folder, "cpu", anyway=True).predict(image)
    assert scored.logit == told.logit == seen.logit
    assert (scored.fake, told.fake) == (None, seen.fake) and isinstance(seen.fake, bool)
    assert json.loads(json.dumps(scored.as_dict()))["fake"] is None
    result = CliRunner().invoke(main, ["predict", "-", "--model", str(folder)], input=None)
    assert result.exit_code == 0
    (folder / "x.png").write_bytes(image)
    table = CliRunner().invoke(main, ["predict", str(folder / "x.png"), "--model", str(folder)])
    assert "no verdicts: this detector has never seen a photograph" in table.stderr and "8 rendered scenes" in table.stderr
    assert not {"generated", "real"} & {*table.stdout.split()}
    assert {"generated", "real"} & {
        *CliRunner().invoke(main, ["predict", str(folder / "x.png"), "--model", str(folder), "--anyway"]).stdout.split()
    }


def test_a_backbone_that_the_run_lacks_is_named(small, tmp_path):
    detector = trained("clip_lora", small)
    context = Context({"clip": small.context.backbone("clip")}, small.context.patches)
    with pytest.raises(ValueError, match="needs the backbones clip"):
        model_folder.save(tmp_path / "model", detector, read_facts_of(context), {})


def read_facts_of(context):
    """Facts of a detector that nobody saved."""
    from nullscope.model_facts import ModelFacts

    patches = context.patches.model_dump()
    return ModelFacts(detector="clip_lora", seed=0, params={}, patches=patches, max_pixels=1, caption={})
