"""What every detector promises to the training loop and to scoring. A new detector is tested by being there."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, conf_of

from nullscope import detectors, model_folder
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
    return detectors.build(name, {**conf_of(name), **changes}, small.context, seed=seed)


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


@pytest.mark.parametrize("name", NAMES)
def test_saved_detector_scores_identically_in_a_fresh_process(name, small, tmp_path):
    detector = build(name, small, epochs=1, batch_size=8)
    training = Training(detector, small.data(detector), seed=0, device=CPU, scratch=tmp_path / "scratch")
    history = [step.row() for step in training.run()]
    made = model_folder.Made(name, 0, {**conf_of(name), "epochs": 1, "batch_size": 8}, small.context.patches, 10**6, {})
    blip = tmp_path / "blip"
    blip.mkdir()
    model_folder.save(tmp_path / "model", detector, made, model_folder.Frozen(small.context.backbone("clip"), blip), history)
    assert (tmp_path / "model/blip").is_dir() == detector.captions_at_inference
    here = [value for rows in whole(detector, small) for value in logits(detector, rows, CPU, captions_of(detector, small))]
    script = (
        "import sys, torch, conftest; from pathlib import Path; from nullscope import detectors, model_folder\n"
        "from nullscope.scoring import logits\n"
        "from nullscope.shards.reading import list_shards; from nullscope.shards.loading import read_whole\n"
        "from nullscope.tables.text import TextTable\n"
        "detectors.NAMES.append('small_resnet')\n"
        "d, _ = model_folder.load(Path(sys.argv[1]), torch.device('cpu'))\n"
        "text = TextTable.read(Path(sys.argv[2]) / 'text.parquet') if d.captions_at_inference else None\n"
        "for rows in read_whole(list_shards(Path(sys.argv[2]) / d.transform.kind), d.transform, workers=0):\n"
        "    print(*map(repr, logits(d, rows, torch.device('cpu'), text)), sep='\\n')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(small.folder)]
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "tests").stdout.split()
    assert [float(value) for value in there] == here


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
    with pytest.raises(ValueError, match="did you mean 'ns_net'"):
        detectors.build("nsnet", {}, small.context, seed=0)
