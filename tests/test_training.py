"""The training loop: what changes no weight, how often it waits for the device, and errors that say what is wrong.

That a resumed training ends with the weights of an uninterrupted one is tested in test_resume.py.
"""

import pytest
import torch
from conftest import conf_of
from torch.utils._python_dispatch import TorchDispatchMode

from nullscope import detectors, model_folder
from nullscope.core import ranks
from nullscope.training import FETCH, Training

CPU = torch.device("cpu")


def begin(small, scratch, **changes):
    detector = detectors.build("ns_net", {**conf_of("ns_net"), "epochs": 3, "batch_size": 8, **changes}, small.context, seed=0)
    return Training(detector, small.data(detector), seed=0, device=CPU, scratch=scratch)


def test_workers_change_no_weight(small, tmp_path):
    weights = []
    for workers in (0, 2):
        run = begin(small, tmp_path / str(workers), epochs=1)
        object.__setattr__(run.data, "workers", workers)
        list(run.run())
        weights.append(model_folder.kept(run.detector))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_fewer_images_than_a_batch_is_an_error(small, tmp_path):
    with pytest.raises(ValueError, match="training set of 40 images: expected at least a batch of 64"):
        begin(small, tmp_path, batch_size=64)


def test_a_diverged_loss_is_an_error(small, tmp_path):
    run = begin(small, tmp_path)
    with torch.no_grad():
        run.detector.head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"step 0: the loss is .*try a lower lr"):
        list(run.run())


def test_a_loss_that_diverges_later_is_named_by_its_step_and_never_saved(small, tmp_path):
    """The losses are fetched some steps later: the checkpoint from before it stays."""
    run = begin(small, tmp_path / "scratch")
    steps = run.run()
    run.checkpoint_s = 0.0
    for _ in range(3):
        next(steps)
    with torch.no_grad():
        run.detector.head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 3: "):
        next(steps)
    assert len(begin(small, tmp_path / "scratch").history) == 3


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: a tensor read as a Python number, or copied to the CPU."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in ("tolist", "cpu", "numpy", "__bool__", "__index__", "nonzero"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, method):
        def call(*args, **kwargs):
            self.count += 1
            return method(*args, **kwargs)

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["linear_probe", "clip_lora", "ns_net", "advanced_ns_net", "dgs_net", "anchored_ns_net"])
def test_the_host_waits_for_the_device_once_in_sixteen_steps(small, tmp_path, monkeypatch, name):
    """Adam on the CPU reads its step count as a number; on CUDA it is fused and does not. SGD stands in for it."""
    epochs = {key: 4 for key in conf_of(name) if key.endswith("epochs")}
    detector = detectors.build(name, {**conf_of(name), **epochs, "batch_size": 8}, small.context, seed=0)
    detector.clip.rows_apart = False  # micro-batches are of the CPU, where nobody waits
    monkeypatch.setattr(detector, "optimizer", lambda phase: torch.optim.SGD(phase.parameters, lr=phase.lr, foreach=False))
    run = Training(detector, small.data(detector), seed=0, device=CPU, scratch=tmp_path)
    phases = len(detector.phases())
    read = list(run._batches(detector.phases()[0]))  # reading is the host's own affair
    monkeypatch.setattr(run, "_batches", lambda phase: read)
    with Waits(monkeypatch) as waits:
        steps = list(run.run())
    assert len(steps) == 20 * phases and FETCH == 16
    assert waits.count == 2 * phases  # after 16 steps, and at the end of a phase


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_step_waits_for_the_gpu(small, tmp_path):
    run = begin(small, tmp_path)
    run.device = torch.device("cuda")
    run.detector.to(run.device)
    steps = run.run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            next(steps)  # the fetch, and nothing before it
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(run._pending) == min(FETCH, len(run))


def test_history_has_every_step_once_whenever_losses_are_fetched(small, tmp_path):
    rows = []
    for number, checkpoint_s in enumerate((1e9, 0.0)):
        run = begin(small, tmp_path / str(number))
        run.checkpoint_s = checkpoint_s
        rows.append([step.row() for step in run.run()])
        assert [step.row() for step in run.history] == rows[-1]
    assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == list(range(15))


@pytest.mark.parametrize("value", ["-1", "soon", "inf", "nan"])
def test_a_bad_interval_is_named(monkeypatch, value):
    monkeypatch.setenv("NULLSCOPE_CHECKPOINT_S", value)
    with pytest.raises(ValueError, match=f"NULLSCOPE_CHECKPOINT_S: expected seconds, 0 or more, found '{value}'"):
        ranks.checkpoint_seconds()


@pytest.mark.slow
def test_a_compiled_tower_trains_the_same_model(small, tmp_path):
    """Dropout included: other kernels, no other numbers than rounding makes. Compiled for the CPU, and called as on CUDA."""
    losses = []
    for compiled in (False, True):
        run = begin(small, tmp_path / str(compiled), epochs=1)
        run.detector.clip.rows_apart = False
        if compiled:
            run.detector.clip.compile_network()
        losses.append(torch.tensor([list(step.losses.values()) for step in run.run()]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    assert not torch.equal(losses[0][0], losses[0][1])


def test_a_tower_is_not_compiled_for_the_cpu(small, tmp_path, monkeypatch):
    monkeypatch.setenv("NULLSCOPE_COMPILE", "1")
    with pytest.raises(ValueError, match="NULLSCOPE_COMPILE=1: towers are compiled for CUDA"):
        begin(small, tmp_path, epochs=1)


def test_frozen_weights_stay_as_they_are(small, tmp_path):
    run = begin(small, tmp_path, epochs=1)
    before = {name: tensor.clone() for name, tensor in run.detector.state_dict().items()}
    list(run.run())
    moved = {name for name, tensor in run.detector.state_dict().items() if not torch.equal(tensor, before[name])}
    trainable = {name for name, parameter in run.detector.named_parameters() if parameter.requires_grad}
    assert moved and moved <= trainable
