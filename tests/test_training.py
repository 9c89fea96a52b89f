"""The training loop: a resumed training ends with the weights of an uninterrupted one, and says what is wrong."""

import pytest
import torch
from conftest import conf_of

from nullscope import detectors, saved, training
from nullscope.training import Training

CPU = torch.device("cpu")


def begin(small, scratch, **changes):
    detector = detectors.build("ns_net", {**conf_of("ns_net"), "epochs": 3, "batch_size": 8, **changes}, small.context, seed=0)
    return Training(detector, small.data(detector), seed=0, device=CPU, scratch=scratch)


@pytest.mark.parametrize("killed_after", [1, 5, 7, 12])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(small, tmp_path, monkeypatch, killed_after):
    """Killed in the middle of an epoch, at its end, and later; the checkpoint may be older than the last step."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole = begin(small, tmp_path / "whole")
    list(whole.run())
    killed = begin(small, tmp_path / "killed")
    steps = killed.run()
    for _ in range(killed_after):
        next(steps)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 1e9)
    for _ in range(2):
        next(steps)
    steps.close()
    resumed = begin(small, tmp_path / "killed")
    assert len(resumed.history) == killed_after
    assert len(list(resumed.run())) == len(whole) - killed_after
    assert resumed.history == whole.history
    expected = saved.kept(whole.detector)
    for name, tensor in saved.kept(resumed.detector).items():
        assert torch.equal(tensor, expected[name]), name


def test_workers_change_no_weight(small, tmp_path):
    weights = []
    for workers in (0, 2):
        run = begin(small, tmp_path / str(workers), epochs=1)
        object.__setattr__(run.data, "workers", workers)
        list(run.run())
        weights.append(saved.kept(run.detector))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_fewer_images_than_a_batch_is_an_error(small, tmp_path):
    with pytest.raises(ValueError, match="training set of 40 images: expected at least a batch of 64"):
        begin(small, tmp_path, batch_size=64)


def test_a_diverged_loss_is_an_error(small, tmp_path):
    run = begin(small, tmp_path)
    with torch.no_grad():
        run.detector.head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="try a lower lr"):
        list(run.run())


def test_frozen_weights_stay_as_they_are(small, tmp_path):
    run = begin(small, tmp_path, epochs=1)
    before = {name: tensor.clone() for name, tensor in run.detector.state_dict().items()}
    list(run.run())
    moved = {name for name, tensor in run.detector.state_dict().items() if not torch.equal(tensor, before[name])}
    trainable = {name for name, parameter in run.detector.named_parameters() if parameter.requires_grad}
    assert moved and moved <= trainable
