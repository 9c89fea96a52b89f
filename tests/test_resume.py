"""A resumed training ends with the weights of an uninterrupted one, whatever optimiser, rates and layers a detector has.

`test_training` resumes a detector of the default pipeline: one Adam, no buffer that training changes. Here is a small
convolutional network on pixels, without any frozen backbone. Its BatchNorm has running statistics, and its page chooses the
optimiser and how the learning rate falls.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nullscope import model_folder
from nullscope.detectors import base
from nullscope.images.transforms import WholeImage
from nullscope.training import Training

EPOCHS, BATCH = 3, 8  # of 40 images: 5 steps per epoch
CPU = torch.device("cpu")


def halved_every_epoch(progress: base.Progress) -> float:
    """A factor that changes between the steps of an epoch, and between epochs."""
    return 0.5**progress.epoch * (1 - 0.1 * progress.step / progress.steps_per_epoch)


def sgd(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.01)


def momentum(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-3)


def adamw(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.05, amsgrad=True)


def rmsprop(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, lr=0.01, momentum=0.9, centered=True)


OPTIMIZERS = [sgd, momentum, adamw, rmsprop]


class Pixels(base.Detector):
    """Two convolutions with BatchNorm on 16 x 16 pixels. The head and the biases are parameter groups of their own."""

    def __init__(self, optimizer: Callable[[list[dict]], torch.optim.Optimizer], lr_factor: Callable = base.constant) -> None:
        super().__init__(base.DetectorParams(epochs=EPOCHS, batch_size=BATCH, lr=0.01, precision="fp32"))
        self.transform = WholeImage("resize", side=16, flip=0.5)
        self.make_optimizer, self.lr_factor = optimizer, lr_factor
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [
                nn.Conv2d(3, 6, 3, stride=2),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Conv2d(6, 8, 3),
                nn.BatchNorm2d(8),
                nn.ReLU(),
            ]
            self.body = nn.Sequential(*layers, nn.Dropout(0.2))
            self.head = nn.Linear(8, 1)

    def features(self, batch: base.Batch) -> Tensor:
        return self.body(batch.inputs["image"].float() / 255).mean((2, 3))

    def classify(self, feature_BK: Tensor) -> Tensor:
        return self.head(feature_BK).squeeze(-1)

    def phases(self) -> list[base.Phase]:
        return [base.Phase("main", self.trainable(), EPOCHS, 0.01, lr_factor=self.lr_factor)]

    def optimizer(self, phase: base.Phase) -> torch.optim.Optimizer:
        own = {id(parameter) for parameter in self.head.parameters()}
        flat = [each for each in phase.parameters if each.ndim == 1 and id(each) not in own]
        deep = [each for each in phase.parameters if each.ndim > 1 and id(each) not in own]
        head = {"params": list(self.head.parameters()), "lr": 0.05}
        return self.make_optimizer([{"params": deep}, {"params": flat, "weight_decay": 0.0}, head])


def begin(small, scratch: Path, *page: Callable) -> Training:
    detector = Pixels(*page)
    return Training(detector, small.data(detector), seed=0, device=CPU, scratch=scratch)


def killed_and_resumed(small, scratch: Path, killed_after: int, *page: Callable) -> Training:
    """Train, lose two steps that came after the last checkpoint, begin again and train to the end."""
    killed = begin(small, scratch, *page)
    killed.checkpoint_s, steps = 0.0, killed.run()
    for _ in range(killed_after):
        next(steps)
    killed.checkpoint_s = 1e9
    for _ in range(2):
        next(steps, None)
    steps.close()
    resumed = begin(small, scratch, *page)
    assert len(resumed.history) == killed_after
    list(resumed.run())
    return resumed


def assert_same_model(found: Training, expected: Training) -> None:
    assert found.history == expected.history
    weights = model_folder.kept(expected.detector)
    assert {name.rpartition(".")[2] for name in weights} >= {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    for name, tensor in model_folder.kept(found.detector).items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("killed_after", [4, 5, 12])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda make: make.__name__)
def test_any_optimiser_resumes_with_its_moments_and_batchnorm_with_its_statistics(small, tmp_path, optimizer, killed_after):
    """Killed within the first epoch, at its end, and in the last one."""
    whole = begin(small, tmp_path / "whole", optimizer)
    list(whole.run())
    assert_same_model(killed_and_resumed(small, tmp_path / "killed", killed_after, optimizer), whole)


@pytest.mark.parametrize("killed_after", [4, 5, 12])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda make: make.__name__)
def test_a_falling_rate_goes_on_falling_after_a_resume(small, tmp_path, optimizer, killed_after):
    """The rate is a function of the progress. A training that takes a fresh optimiser's rate would end elsewhere."""
    whole = begin(small, tmp_path / "whole", optimizer, halved_every_epoch)
    list(whole.run())
    constant = begin(small, tmp_path / "constant", optimizer)
    list(constant.run())
    assert constant.history[1:] != whole.history[1:], "the rate never changed"
    assert_same_model(killed_and_resumed(small, tmp_path / "killed", killed_after, optimizer, halved_every_epoch), whole)


def test_every_group_has_its_own_rate_times_the_factor(small, tmp_path, monkeypatch):
    """0.01 and 0.05 at the start; a step of plain SGD is the rate times the gradient, here computed from the weights."""
    run = begin(small, tmp_path, sgd, halved_every_epoch)
    run.detector.backward = lambda losses: [setattr(each, "grad", torch.ones_like(each)) for each in run.detector.parameters()]
    before = {name: tensor.clone() for name, tensor in run.detector.named_parameters()}
    list(run.run())
    total = sum(halved_every_epoch(base.Progress(epoch, EPOCHS, step, 5)) for epoch in range(EPOCHS) for step in range(5))
    for name, tensor in run.detector.named_parameters():
        rate = 0.05 if name.startswith("head") else 0.01
        torch.testing.assert_close(before[name] - tensor.detach(), torch.full_like(tensor, rate * total), rtol=1e-4, atol=1e-6)


def test_a_loaded_detector_has_the_statistics_that_training_left(small, tmp_path):
    """`restore` puts buffers back by name, and the logits of a fresh detector are those of the trained one."""
    run = begin(small, tmp_path, momentum)
    list(run.run())
    fresh = Pixels(momentum).eval()
    model_folder.restore(fresh, model_folder.kept(run.detector))
    image = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    batch = base.Batch({"image": image}, torch.zeros(4), list("abcd"))
    assert torch.equal(fresh(batch), run.detector.eval()(batch))
    assert int(fresh.body[1].num_batches_tracked) == 15
