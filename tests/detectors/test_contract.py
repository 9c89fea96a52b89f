"""What every detector promises to the training loop and to scoring. A new detector is tested by being there."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, conf_of

from nullscope import detectors, saved
from nullscope.data.loading import read_whole, training_batches
from nullscope.scoring import logits
from nullscope.training import Training

CPU = torch.device("cpu")
NAMES = detectors.NAMES


def test_there_are_detectors():
    assert NAMES


def build(name, small, seed=0, **changes):
    return detectors.build(name, {**conf_of(name), **changes}, small.context, seed=seed)


def prepared(name, small, seed=0, **changes):
    detector = build(name, small, seed, **changes)
    if detector.needs_captions:
        detector.prepare(small.data(detector).text.chunks())
    return detector.eval()


def whole(detector, small):
    return list(read_whole(small.shards(detector.view.kind), detector.view, workers=0))


def first_batch(detector, small, size=8):
    data = small.data(detector)
    batch = next(training_batches(data.shards, detector.view, batch_size=size, seed=0, epoch=0, skip=0, workers=0))
    return batch.to(CPU, data.text)


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_shape_and_dtype(name, small):
    detector = prepared(name, small)
    batch = dataclasses.replace(first_batch(detector, small), text_BD=None)
    logit_B = detector(batch)
    assert logit_B.shape == (8,) and logit_B.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_logit_depends_on_its_image_alone(name, small):
    """Alone, in any batch, in any order: equal to 1e-5."""
    detector = prepared(name, small)
    rows = whole(detector, small)[0]
    together = logits(detector, rows, CPU)
    for size in (1, 2, 5):
        apart = torch.cat([detector(batch) for batch in rows.batches(size)])
        np.testing.assert_allclose(apart.detach(), together, rtol=0, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(together))
    np.testing.assert_allclose(detector(rows.take(order)).detach(), np.array(together)[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_that_trains_and_nothing_else(name, small):
    detector = prepared(name, small).train()
    for _ in range(2):  # LoRA's A has no gradient while B is zero: one step first
        optimizer = detector.optimizer(detector.phases()[0])
        optimizer.zero_grad()
        detector.backward(detector.losses(first_batch(detector, small)))
        optimizer.step()
    for parameter_name, parameter in detector.named_parameters():
        got = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert got == parameter.requires_grad, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_saved_detector_scores_identically_in_a_fresh_process(name, small, tmp_path):
    detector = build(name, small, epochs=1, batch_size=8)
    training = Training(detector, small.data(detector), seed=0, device=CPU, scratch=tmp_path / "scratch")
    history = [step.row() for step in training.run()]
    made = saved.Made(name, 0, {**conf_of(name), "epochs": 1, "batch_size": 8}, small.context.patches, 10**6)
    saved.save(tmp_path / "model", detector, made, small.context.clip, history)
    here = [value for rows in whole(detector, small) for value in logits(detector, rows, CPU)]
    script = (
        "import sys, torch; from pathlib import Path; from nullscope import saved; from nullscope.scoring import logits\n"
        "from nullscope.data.shards import list_shards; from nullscope.data.loading import read_whole\n"
        "d, _ = saved.load(Path(sys.argv[1]), torch.device('cpu'))\n"
        "for rows in read_whole(list_shards(Path(sys.argv[2]) / d.view.kind), d.view, workers=0):\n"
        "    print(*map(repr, logits(d, rows, torch.device('cpu'))), sep='\\n')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(small.folder)]
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
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
    """The gradients point the right way: sixty steps on one batch tell its reals from its fakes."""
    detector = prepared(name, small, lr=1e-2)
    batch = first_batch(detector, small)
    assert 0 < batch.is_fake_B.sum() < 8
    optimizer = detector.optimizer(detector.phases()[-1])
    torch.manual_seed(0)
    detector.train()
    for _ in range(60):
        optimizer.zero_grad()
        detector.backward(detector.losses(batch))
        optimizer.step()
    logit_B = detector.eval()(dataclasses.replace(batch, text_BD=None))
    assert torch.equal(logit_B > 0, batch.is_fake_B > 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameter_is_named(name, small):
    with pytest.raises(ValueError, match=r"learning_rate.*unknown"):
        build(name, small, learning_rate=1.0)


def test_unknown_detector_suggests_the_near_one(small):
    with pytest.raises(ValueError, match="did you mean 'ns_net'"):
        detectors.build("nsnet", {}, small.context, seed=0)
