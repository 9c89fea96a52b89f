"""A resumed training ends with the weights of an uninterrupted one: in any phase, with any optimiser, rate and layers.

Two kinds of detectors are resumed. DGS-Net has two phases, captions, dropout and Adam. The tests' own small ResNet has batch
normalisation, whose statistics training changes; here its learning rate falls at every step, and its optimiser is one of four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import conf_of

from nullscope import detectors, model_folder
from nullscope.detectors import base
from nullscope.training import Training

EPOCHS, BATCH, STEPS_PER_EPOCH = 3, 8, 5  # of 40 images
CPU = torch.device("cpu")
RATE, HEAD_RATE = 0.01, 0.05  # at the start, of the two groups of parameters


def falling(progress: base.Progress) -> float:
    """A factor that changes between epochs, and between the steps of an epoch."""
    return 0.5**progress.epoch * (1 - 0.1 * progress.step / progress.steps_per_epoch)


Groups = list[dict]
OPTIMIZERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=RATE),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=RATE, weight_decay=0.05, amsgrad=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=RATE, momentum=0.9, centered=True),
}


def build_resnet(optimizer: str) -> base.Detector:
    """The small ResNet with another optimiser and a falling rate. The head is a group of its own, and does not decay."""
    sizes = {"channels": 8, "resize_px": 20, "crop_px": 16, "epochs": EPOCHS, "batch_size": BATCH}
    detector = detectors.build("small_resnet", {**conf_of("small_resnet"), **sizes}, base.Context({}, None), seed=0)
    head = list(detector.head.parameters())
    body = detector.trainable(but=head)
    groups = [{"params": body}, {"params": head, "lr": HEAD_RATE, "weight_decay": 0.0}]
    detector.phases = lambda: [base.Phase("main", [*body, *head], EPOCHS, RATE, lr_factor=falling)]
    detector.optimizer = lambda phase: OPTIMIZERS[optimizer](groups)
    return detector


def dgs_net(small) -> base.Detector:
    lengths = {"epochs": 2, "teacher_epochs": 2, "batch_size": BATCH}
    return detectors.build("dgs_net", {**conf_of("dgs_net"), **lengths}, small.context, seed=0)


Begin = Callable[[Path], Training]


@pytest.fixture
def begin_resnet(small, small_resnet) -> Callable[[str], Begin]:
    """Return the function that returns, for an optimiser, how the training of the small ResNet begins in a scratch folder."""
    return lambda optimizer: lambda scratch: begin(small, build_resnet(optimizer), scratch)


def begin(small, detector: base.Detector, scratch: Path) -> Training:
    data = small.data(detector)
    data = replace(data, val_shards=data.shards[:1])
    return Training(detector, data, seed=0, device=CPU, scratch=scratch)


def killed_and_resumed(begin: Begin, scratch: Path, killed_after: int) -> Training:
    """Train, lose up to two steps that came after the last checkpoint, begin again and train to the end."""
    killed = begin(scratch)
    killed.checkpoint_s, steps = 0.0, killed.run()
    for _ in range(killed_after):
        next(steps)
    killed.checkpoint_s = 1e9
    for _ in range(2):
        next(steps, None)
    steps.close()
    resumed = begin(scratch)
    assert len(resumed.history) == killed_after
    assert len(list(resumed.run())) == len(resumed) - killed_after
    return resumed


def assert_same(found: Training, expected: Training) -> None:
    """The same history, with the same columns in the same order, and the same model to the bit."""
    assert found.history == expected.history and len(found.history) == len(expected)
    assert [list(step.row()) for step in found.history] == [list(step.row()) for step in expected.history]
    weights = model_folder.kept(expected.detector)
    assert weights.keys() == model_folder.kept(found.detector).keys()
    for name, tensor in model_folder.kept(found.detector).items():
        assert torch.equal(tensor, weights[name]), name


@pytest.fixture(scope="module")
def whole_dgs_net(small, tmp_path_factory) -> Training:
    """An uninterrupted training."""
    run = begin(small, dgs_net(small), tmp_path_factory.mktemp("whole"))
    list(run.run())
    return run


@pytest.mark.parametrize("killed_after", [1, 5, 9, 10, 13, 19])
def test_resumed_in_either_phase(small, whole_dgs_net, tmp_path, killed_after):
    """Killed at the first step, between epochs, before and at the last step of a phase, within an epoch, before the end."""
    names = model_folder.kept(whole_dgs_net.detector)
    assert any(name.startswith("frozen_head") for name in names) and any("lora" in name.lower() for name in names)
    assert_same(killed_and_resumed(lambda scratch: begin(small, dgs_net(small), scratch), tmp_path, killed_after), whole_dgs_net)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_with_any_optimiser_at_a_falling_rate(begin_resnet, tmp_path, optimizer):
    """Killed within the first epoch, at its end, and in the last one.

    A training that took a fresh optimiser's rate or moments, or fresh statistics of batch normalisation, would end elsewhere.
    """
    whole = begin_resnet(optimizer)(tmp_path / "whole")
    list(whole.run())
    kept = {name.rpartition(".")[2] for name in model_folder.kept(whole.detector)}
    assert kept == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    for killed_after in (4, 5, 12):
        assert_same(killed_and_resumed(begin_resnet(optimizer), tmp_path / str(killed_after), killed_after), whole)


def test_every_group_has_its_own_rate_times_the_factor(begin_resnet, tmp_path):
    """Plain SGD with gradients of one: what a weight has moved by in the end is the sum of the rates."""
    run = begin_resnet("sgd")(tmp_path)
    parameters = dict(run.detector.named_parameters())
    run.detector.backward = lambda losses: [setattr(each, "grad", torch.ones_like(each)) for each in parameters.values()]
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    list(run.run())
    places = [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS_PER_EPOCH)]
    total = sum(0.5**epoch * (1 - 0.1 * step / 5) for epoch, step in places)
    for name, parameter in parameters.items():
        moved = torch.full_like(parameter, total * (HEAD_RATE if name.startswith("head") else RATE))
        torch.testing.assert_close(before[name] - parameter.detach(), moved, rtol=1e-4, atol=1e-6)


def test_statistics_that_training_changed_are_restored(begin_resnet, tmp_path):
    """A fresh detector with the kept weights gives the logits of the trained one."""
    run = begin_resnet("momentum")(tmp_path)
    list(run.run())
    fresh = build_resnet("momentum").eval()
    image = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = base.Batch({"image": image, "flip": torch.zeros(4, dtype=torch.bool)}, torch.zeros(4), list("abcd"))
    assert not torch.equal(fresh(batch), run.detector.eval()(batch))
    model_folder.restore(fresh, model_folder.kept(run.detector))
    assert torch.equal(fresh(batch), run.detector(batch))
    counts = [int(value) for name, value in fresh.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(counts) == {EPOCHS * STEPS_PER_EPOCH}
