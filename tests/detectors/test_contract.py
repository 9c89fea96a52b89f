"""What every detector promises to the training loop and to scoring. A new detector is tested by being there."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, conf_of, save_model

from nullscope import detectors
from nullscope.core import launcher
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole, training_batches
from nullscope.training import Training

CPU = torch.device("cpu")
NAMES = [*detectors.NAMES, "small_resnet"]  # the tests' own has no CLIP


@pytest.fixture(autouse=True)
def with_small_resnet(small_resnet):
    """All of them are detectors here."""


def test_there_are_detectors():
    assert len(NAMES) > 1


def build(name, small, seed=0, **changes):
    """A detector at the start of a training."""
    detector = detectors.build(name, {**conf_of(name), **changes}, small.context, seed=seed)
    detector.begin(small.folder)
    return detector


def prepared(name, small, seed=0, **changes):
    detector = build(name, small, seed, **changes)
    if detector.needs_captions:
        detector.see_captions(small.data(detector).text.chunks())
    return detector.eval()


def whole(detector, small):
    return list(read_whole(small.shards(detector.transform.kind), detector.transform, workers=0))


def first_batch(detector, small, size=8):
    data = small.data(detector)
    batch = next(training_batches(data.shards, detector.transform, batch_size=size, seed=0, epoch=0, skip=0, workers=0))
    return batch.to(CPU, data.text)


def at_inference(detector, batch):
    """The batch as scoring gives it: captions only where the detector asks for them."""
    return batch if detector.captions_at_inference else dataclasses.replace(batch, text_BD=None)


def captions_of(detector, small):
    return small.data(detector).text if detector.captions_at_inference else None


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_shape_and_dtype(name, small):
    detector = prepared(name, small)
    logit_B = detector(at_inference(detector, first_batch(detector, small)))
    assert logit_B.shape == (8,) and logit_B.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_logit_depends_on_its_image_alone(name, small):
    """Alone, in any batch, in any order: equal to 1e-5."""
    detector = prepared(name, small)
    rows = whole(detector, small)[0]
    text = captions_of(detector, small)
    together = logits(detector, rows, CPU, text)
    for size in (1, 2, 5):
        apart = torch.cat([detector(batch.to(CPU, text)) for _, batch in rows.batches(size)])
        np.testing.assert_allclose(apart.detach(), together, rtol=0, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(together))
    np.testing.assert_allclose(detector(rows.take(order).to(CPU, text)).detach(), np.array(together)[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_sees_the_features(name, small):
    detector = prepared(name, small)
    batch = at_inference(detector, first_batch(detector, small))
    feature_BK = detector.features(batch)
    assert feature_BK.ndim == 2 and len(feature_BK) == 8
    torch.testing.assert_close(detector.classify(feature_BK), detector(batch))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_that_a_phase_trains_and_nothing_else(name, small):
    detector = prepared(name, small).train()
    moved = set()
    for phase in detector.phases():
        detector.phase = phase.name
        optimizer = detector.optimizer(phase)
        for _ in range(2):  # LoRA's A has no gradient while B is zero: one step first
            optimizer.zero_grad()
            detector.zero_grad()
            detector.backward(detector.losses(first_batch(detector, small)))
            optimizer.step()
        got = {name for name, p in detector.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
        assert got == {name for name, p in detector.named_parameters() if any(p is own for own in phase.parameters)}
        moved |= got
    assert moved == {name for name, p in detector.named_parameters() if p.requires_grad}


# What a fresh process does with the folders of detectors: it prints the logits of each as one line of JSON.
SCORE = """
import json, sys, conftest
from pathlib import Path
import torch
from nullscope import detectors, model_folder
from nullscope.scoring import logits
from nullscope.shards.loading import read_whole
from nullscope.shards.reading import list_shards
from nullscope.tables.text import TextTable

detectors.NAMES.append("small_resnet")
shards, cpu = Path(sys.argv[1]), torch.device("cpu")
for model in sys.argv[2:]:
    detector, _ = model_folder.load_unmerged(Path(model))
    text = TextTable.read(shards / "text.parquet") if detector.captions_at_inference else None
    rows = read_whole(list_shards(shards / detector.transform.kind), detector.transform, workers=0)
    print(json.dumps([value for each in rows for value in logits(detector, each, cpu, text)]))
"""


@pytest.fixture(scope="module")
def here_and_there(small, tmp_path_factory):
    """The logits of every detector, by its name: where it was trained, and in another process. One process for all of them."""
    folder, here = tmp_path_factory.mktemp("contract"), {}
    (folder / "blip").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "NAMES", NAMES)
        for name in NAMES:
            detector = train_and_save(name, small, folder)
            captions = captions_of(detector, small)
            here[name] = [value for rows in whole(detector, small) for value in logits(detector, rows, CPU, captions)]
    command = [sys.executable, "-c", SCORE, str(small.folder), *(str(folder / name) for name in NAMES)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT / "tests").stdout
    there = dict(zip(NAMES, map(json.loads, printed.splitlines()), strict=True))
    return {name: (here[name], there[name]) for name in NAMES}


def train_and_save(name, small, folder):
    detector = build(name, small, epochs=1, batch_size=8)
    training = Training(detector, small.data(detector), seed=0, device=CPU, scratch=folder / "scratch" / name)
    list(training.run())
    params = {**conf_of(name), "epochs": 1, "batch_size": 8}
    save_model(folder / name, detector, name, params, small.context, blip=folder / "blip")
    assert (folder / name / "blip").is_dir() == detector.captions_at_inference
    return detector


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_saved_detector_scores_identically_in_a_fresh_process(name, here_and_there):
    here, there = here_and_there[name]
    assert len(here) == 40 and there == here


def adapted(name, small):
    """A prepared detector whose adapters, if it has some, change its features."""
    detector = prepared(name, small)
    with torch.no_grad():
        for parameter_name, parameter in detector.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.1)
    return detector


@pytest.mark.parametrize("name", NAMES)
def test_merging_makes_inference_faster_and_changes_no_logit(name, small):
    """To the rounding of merged weights; every adapter that inference can do without is gone."""
    detector = adapted(name, small)
    rows, text = whole(detector, small)[0], captions_of(detector, small)
    apart = logits(detector, rows, CPU, text)
    detector.merge()
    assert logits(detector, rows, CPU, text) == pytest.approx(apart, abs=1e-5)
    left = [parameter_name for parameter_name, _ in detector.named_parameters() if "lora" in parameter_name]
    assert bool(left) == (name == "anchored_ns_net")  # it runs the frozen tower too


@pytest.mark.parametrize("name", NAMES)
def test_images_that_are_scored_at_once_do_not_disturb_each_other(name, small, monkeypatch):
    """Whatever a detector switches for an image, it must not switch for the others: lanes share its modules."""
    detector = adapted(name, small)
    rows, text, found = whole(detector, small)[0], captions_of(detector, small), []
    for cpus in (1, 7, 7, 7):
        monkeypatch.setattr(launcher, "cpus", lambda cpus=cpus: cpus)
        found.append(logits(detector, rows, CPU, text))
    assert len(found[0]) == 7 and all(own == found[0] for own in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_losses_and_another_seed_others(name, small, tmp_path):
    def losses(seed, scratch):
        detector = build(name, small, seed=seed, epochs=1, batch_size=8)
        training = Training(detector, small.data(detector), seed=seed, device=CPU, scratch=tmp_path / scratch)
        return [step.row() for step in training.run()]

    assert losses(0, "a") == losses(0, "b")
    assert losses(0, "c") != losses(1, "d")


@pytest.mark.parametrize("name", NAMES)
def test_memorises_eight_images(name, small):
    """The gradients point the right way: some steps on one batch tell its reals from its fakes."""
    detector = prepared(name, small, lr=1e-2)
    batch = first_batch(detector, small)
    assert 0 < batch.is_fake_B.sum() < 8
    phase = detector.phases()[-1]
    detector.phase, optimizer = phase.name, detector.optimizer(phase)
    torch.manual_seed(0)
    for _ in range(20):
        for _ in range(30):
            optimizer.zero_grad()
            detector.train().backward(detector.losses(batch))
            optimizer.step()
        logit_B = detector.eval()(at_inference(detector, batch))
        if torch.equal(logit_B > 0, batch.is_fake_B > 0.5):
            return
    pytest.fail(f"600 steps, and the logits are {logit_B.tolist()} for {batch.is_fake_B.tolist()}")


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameter_is_named(name, small):
    with pytest.raises(ValueError, match=r"learning_rate.*unknown"):
        build(name, small, learning_rate=1.0)


def test_unknown_detector_suggests_the_near_one(small):
    with pytest.raises(ValueError, match="did you mean `ns_net`"):
        detectors.build("nsnet", {}, small.context, seed=0)
