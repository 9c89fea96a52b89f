"""A training on several ranks is the training on one: the same losses and weights, but for the rounding of sums."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from conftest import ROOT, conf_of
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from nullscope import detectors, model_folder
from nullscope.backbones.sharing import BatchNorm2d, RowDropout, Shared, shared, synchronised
from nullscope.core import ranks
from nullscope.images.transforms import PatchMosaic
from nullscope.shards import loading
from nullscope.shards.loading import training_batches
from nullscope.shards.reading import decode_mosaic
from nullscope.training import Training

CPU = torch.device("cpu")
BATCH = 8  # images: three ranks get 3, 3 and 2
LOSS_RTOL, WEIGHT_ATOL = 1e-5, 1e-6
# A gradient is a sum. On several ranks it is summed in another order, so each of its numbers is off by some roundings of the
# largest one. A contrastive loss divides similarities, and so their roundings, by its temperature. (Measured with all methods,
# times the temperature: 4 roundings in a gradient.) `Freedom` says what that does to weights. Weights that may go anywhere
# change the gradients of the others in the next step: with that, one went as far as 17 roundings explain, and 10 with other
# instructions of the processor (`advanced_ns_net_notebook` on three ranks).
ROUNDINGS = 64
ON_PIXELS = [name for name in detectors.NAMES if "width" in conf_of(name)]
NAMES = [*(name for name in detectors.NAMES if name not in ON_PIXELS), "advanced_ns_net_notebook", "dgs_net_official"]

# What every rank runs: train all that is named, one after the other, and let rank 0 write weights and losses.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from conftest import Small
from nullscope import detectors
from nullscope import model_folder
from nullscope.core import ranks
from nullscope.detectors.base import Context
from nullscope.ops.patches import PatchParams
from nullscope.training import Training

job = json.loads(Path(sys.argv[1]).read_text())
out = Path(job["out"])

def main():
    torch.set_num_threads(1)
    detectors.NAMES.append("small_resnet")
    small = Small(Context({"clip": Path(job["clip"])}, PatchParams(**job["patches"])), Path(job["folder"]), [])
    for name, params in job["detectors"].items():
        detector = detectors.build(name, params, small.context, seed=0)
        detector.begin(small.folder)
        run = Training(detector, small.data(detector), seed=0, device=torch.device("cpu"), scratch=out / "scratch" / name,
                       checkpoint_s=job.get("checkpoint_s", 1e9))
        fatal = job.get("fatal", {}).get(str(ranks.rank()))
        resumed = len(run.history)
        for step in run.run():
            if fatal and fatal["how"] == "kill" and not resumed and step.step == fatal["step"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if fatal and fatal["how"] == "raise" and step.step >= fatal["step"]:
                raise ValueError("out of luck")
        if ranks.rank() == 0:
            save_file(model_folder.kept(detector), out / f"{name}.safetensors")
            losses = [value for step in run.history for value in step.losses.values()]
            (out / f"{name}.json").write_text(json.dumps({"losses": losses, "resumed": resumed}))

if __name__ == "__main__":
    ranks.launch(main)
"""


@dataclass(frozen=True)
class Result:
    """What a training left."""

    losses: torch.Tensor  # every term of every step, one after the other
    weights: dict[str, torch.Tensor]
    resumed: int = 0
    freedom: dict[str, torch.Tensor] = field(default_factory=dict)  # of the weights that were trained: `Freedom`


class Freedom:
    """How far each weight of a detector may drift when its gradients are off by some roundings, by the arithmetic of Adam.

    A step moves a weight by lr * m / (sqrt(v) + eps), where m is the mean of its gradients g and v that of their squares. An
    error d of g moves the step by at most lr * d / sqrt(v) in m and as much in v; and no error by more than 2 lr, from one
    direction to the other. So a weight with a strong gradient is held to a millionth, and one whose gradient is nothing but
    rounding is free to go anywhere that Adam can take it.
    """

    def __init__(self, detector: torch.nn.Module) -> None:
        self.names = {id(tensor): name for name, tensor in detector.named_parameters()}
        self.of = {name: torch.zeros_like(tensor) for name, tensor in detector.named_parameters()}
        self.noise = ROUNDINGS * 2.0**-24 / getattr(detector.params, "temperature", 1.0)  # of the largest gradient

    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Add what one step allows; called after every step."""
        trained = [(group, weight) for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        error = self.noise * max(weight.grad.abs().max() for _, weight in trained)
        for group, weight in trained:
            state = optimizer.state[weight]
            variance = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
            self.of[self.names[id(weight)]] += 2 * group["lr"] * (error / (variance.sqrt() + group["eps"])).clamp(max=1)


# Of the detectors on pixels, whose networks are batch-normalised and begin with random weights: there rounding grows tenfold in
# ten steps at the usual rate. At a small one all steps can be held close.
CALM = {"lr": 1e-5, "width": 4, "crop_px": 32}


def params_of(name: str, **changes) -> dict:
    conf = conf_of(name)
    epochs = {key: 2 for key in conf if key.endswith("epochs") and isinstance(conf[key], int)}
    calm = {key: value for key, value in CALM.items() if key in conf} if name in ON_PIXELS else {}
    return {**conf, **epochs, "batch_size": BATCH, **calm, **changes}


def start(small, out: Path, count: int, jobs: dict[str, dict], *launcher: str, **more) -> subprocess.Popen:
    """Start the script on so many ranks, by our own launcher or by a user's ``torchrun``."""
    out.mkdir(parents=True, exist_ok=True)
    facts = {"out": str(out), "clip": str(small.context.backbone("clip")), "folder": str(small.folder), "detectors": jobs}
    (out / "job.json").write_text(json.dumps({**facts, "patches": small.context.patches.model_dump(), **more}))
    (out / "script.py").write_text(SCRIPT)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NULLSCOPE_")}
    clean |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]), "NULLSCOPE_RANKS": str(count)}
    command = [sys.executable, *launcher, str(out / "script.py"), str(out / "job.json")]
    return subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def spawn(small, out: Path, count: int, jobs: dict[str, dict], *launcher: str, **more) -> dict[str, Result]:
    """Run it to its end; return what rank 0 wrote."""
    process = start(small, out, count, jobs, *launcher, **more)
    printed = process.communicate(timeout=600)[0]
    assert process.returncode == 0, printed[-4000:]
    return {name: result(out, name) for name in jobs}


def result(out: Path, name: str) -> Result:
    facts = json.loads((out / f"{name}.json").read_text())
    return Result(torch.tensor(facts["losses"], dtype=torch.float64), load_file(out / f"{name}.safetensors"), facts["resumed"])


def alone(small, scratch: Path, name: str, params: dict) -> Result:
    """The training on one rank, in this process."""
    torch.set_num_threads(1)
    detector = detectors.build(name, params, small.context, seed=0)
    detector.begin(small.folder)
    run = Training(detector, small.data(detector), seed=0, device=CPU, scratch=scratch / name)
    freedom = Freedom(detector)
    hook = register_optimizer_step_post_hook(freedom)
    losses = [value for step in run.run() for value in step.losses.values()]
    hook.remove()
    return Result(torch.tensor(losses, dtype=torch.float64), model_folder.kept(detector), freedom=freedom.of)


def assert_same_bits(one: Result, other: Result) -> None:
    assert torch.equal(one.losses, other.losses)
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def assert_close(one: Result, other: Result) -> None:
    torch.testing.assert_close(other.losses, one.losses, rtol=LOSS_RTOL, atol=1e-7)
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        distance, allowed = (other.weights[name] - weight).abs(), one.freedom.get(name, torch.tensor(0.0)) + WEIGHT_ATOL
        assert (distance <= allowed).all(), f"{name}: {(distance / allowed).max():.1f} times as far off as rounding explains"


JOBS = {name: params_of(name) for name in [*NAMES, *ON_PIXELS, "small_resnet"]}


@pytest.fixture(scope="module", autouse=True)
def with_small_resnet():
    """The tests' own detector is one here: its batch normalisation sees all rows of a batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "NAMES", [*detectors.NAMES, "small_resnet"])
        yield


@pytest.fixture(scope="module")
def one_rank(small, tmp_path_factory) -> dict[str, Result]:
    scratch = tmp_path_factory.mktemp("alone")
    return {name: alone(small, scratch, name, params) for name, params in JOBS.items()}


@pytest.fixture(scope="module")
def two_ranks(small, tmp_path_factory) -> dict[str, Result]:
    return spawn(small, tmp_path_factory.mktemp("two"), 2, JOBS)


@pytest.fixture(scope="module")
def three_ranks(small, tmp_path_factory) -> dict[str, Result]:
    return spawn(small, tmp_path_factory.mktemp("three"), 3, JOBS)


@pytest.mark.slow
@pytest.mark.parametrize("count", ["two", "three"])
@pytest.mark.parametrize("name", NAMES)
def test_ranks_train_the_model_of_one(request, one_rank, count, name):
    several = request.getfixturevalue(f"{count}_ranks")
    assert_close(one_rank[name], several[name])


@pytest.mark.slow
@pytest.mark.parametrize("count", ["two", "three"])
@pytest.mark.parametrize("name", ON_PIXELS)
def test_ranks_move_a_normalised_network_as_one_does(request, small, one_rank, count, name):
    """All losses and statistics, and where the weights have gone: what is apart is little of the way.

    A weight whose gradient is nothing but rounding may go anywhere, so single ones are not held close.
    """
    one, several = one_rank[name], request.getfixturevalue(f"{count}_ranks")[name]
    torch.testing.assert_close(several.losses, one.losses, rtol=LOSS_RTOL, atol=0)
    start = model_folder.kept(detectors.build(name, JOBS[name], small.context, seed=0))
    apart = way = 0.0
    for key, weight in one.weights.items():
        if key in one.freedom:
            apart += (several.weights[key] - weight).double().square().sum()
            way += (weight - start[key]).double().square().sum()
        else:
            torch.testing.assert_close(several.weights[key], weight, rtol=1e-4, atol=1e-4)
    assert way > 0 and (apart / way).sqrt() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("count", ["two", "three"])
def test_batch_normalisation_over_ranks_is_that_of_one(request, one_rank, count):
    """From random weights, with AdamW, rounding grows tenfold in ten steps: the first ones are held close."""
    one, several = one_rank["small_resnet"], request.getfixturevalue(f"{count}_ranks")["small_resnet"]
    torch.testing.assert_close(several.losses[:5], one.losses[:5], rtol=1e-6, atol=0)
    torch.testing.assert_close(several.losses, one.losses, rtol=1e-4, atol=0)
    for name, weight in one.weights.items():
        torch.testing.assert_close(several.weights[name], weight, rtol=0, atol=3e-4)


@pytest.mark.slow
def test_after_a_rank_was_killed_the_group_goes_on_from_the_checkpoint_to_the_same_bits(small, two_ranks, tmp_path):
    """Under a user's own torchrun; dgs_net dies in its second phase. Each starts once more."""
    elastic = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    for name, rank, step in (("ns_net", 1, 6), ("dgs_net", 0, 13)):
        fatal = {str(rank): {"step": step, "how": "kill"}}
        ended = spawn(small, tmp_path / name, 2, {name: JOBS[name]}, *elastic, fatal=fatal, checkpoint_s=0)
        assert step - 1 <= ended[name].resumed <= step + 1  # the other rank may have been a step further, or not yet
        assert_same_bits(two_ranks[name], ended[name])


@pytest.mark.slow
def test_a_rank_that_fails_every_time_ends_all_of_them_and_says_why(small, tmp_path):
    process = start(small, tmp_path, 2, {"ns_net": JOBS["ns_net"]}, fatal={"1": {"step": 3, "how": "raise"}}, checkpoint_s=0)
    printed = process.communicate(timeout=600)[0]
    assert process.returncode != 0
    assert printed.count("error: out of luck") == 1 + ranks.RESTARTS
    assert not (tmp_path / "ns_net.json").exists()


@pytest.mark.slow
def test_a_rank_left_alone_says_so(small, tmp_path):
    """Without a launcher that ends the others, as under srun."""
    (tmp_path / "script.py").write_text(
        "import os, signal, torch\nfrom nullscope.core import ranks\n"
        "def main():\n    ranks.numbers(1)\n    if ranks.rank(): os.kill(os.getpid(), signal.SIGKILL)\n    ranks.numbers(2)\n"
        "ranks.launch(main)\n"
    )
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(tmp_path / "script.py")]
    second = subprocess.Popen(command, env={**os.environ, **group, "RANK": "1"})
    first = subprocess.run(command, env={**os.environ, **group, "RANK": "0"}, capture_output=True, text=True, timeout=120)
    assert second.wait() == -signal.SIGKILL
    assert first.returncode == 1
    last = first.stderr.strip().splitlines()[-1]
    assert last.startswith("error: rank 0 of 2: another rank has ended or does not answer"), first.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [7, 8, 32])
def test_parts_of_a_batch_are_all_of_it_and_none_overlap(monkeypatch, count, rows):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(count))
    parts = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(list(range(rows))[ranks.own(rows)])
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_more_ranks_than_images_of_a_batch_is_an_error(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(ValueError, match="9 ranks for a batch of 8 images: expected at most 8"), shared(torch.nn.Linear(1, 1), 8):
        pass


def test_a_batch_normalisation_of_ones_own_is_refused_on_several_ranks(monkeypatch):
    """Its statistics would be those of a rank's rows; in evaluation mode it has none of the batch."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    sentence = r"1 is a BatchNorm2d: on 2 ranks .*synchronised, or train with NULLSCOPE_RANKS=1"
    with pytest.raises(ValueError, match=sentence), shared(model, 8):
        pass
    for accepted in (synchronised(model), model.eval()):
        with shared(accepted, 8):
            assert all(module.whole == 8 for module in accepted.modules() if isinstance(module, Shared))


def test_a_synchronised_network_computes_the_same_on_one_rank():
    """Forward, backward and running statistics, to the bit."""
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.BatchNorm2d(4))
    ours, x = synchronised(copy.deepcopy(plain)), torch.randn(5, 3, 8, 8)
    for network in (plain, ours):
        network(x).square().mean().backward()
    assert [type(module) for module in ours][1::2] == [BatchNorm2d, BatchNorm2d]
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ranks_dropout_drops_what_one_rank_would_of_its_rows(monkeypatch, dtype):
    x = (torch.rand(8, 5, 24, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)
    module = RowDropout(0.8)
    torch.manual_seed(3)
    whole, after = torch.nn.Dropout(0.8)(x), torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(module(x), whole)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        torch.manual_seed(3)
        with shared(module, 8):
            assert torch.equal(module(x[ranks.own(8)]), whole[ranks.own(8)])
            assert torch.equal(torch.rand(3), after)  # what is drawn next is the same as well
    assert module.whole is None and torch.equal(module.eval()(x), x)


def test_a_rank_decodes_its_own_images_only(small, monkeypatch):
    decoded = []
    monkeypatch.setattr(loading, "decode_mosaic", lambda data: decoded.append(data) or decode_mosaic(data))
    options = {"batch_size": 6, "seed": 0, "epoch": 1, "skip": 2, "workers": 0}
    view = PatchMosaic(small.context.patches.cells, 0.5)
    whole = list(training_batches(small.shards("patches"), view, **options))
    assert len(whole) == 4 and len(decoded) == 24
    for part in (slice(0, 2), slice(2, 3), slice(3, 6)):
        decoded.clear()
        found = list(training_batches(small.shards("patches"), view, **options, own=part))
        assert len(decoded) == 4 * (part.stop - part.start)
        for mine, everyone in zip(found, whole, strict=True):
            assert mine.image_ids == everyone.image_ids and torch.equal(mine.is_fake_B, everyone.is_fake_B)
            for key in everyone.inputs:
                assert torch.equal(mine.inputs[key], everyone.inputs[key][part]), key
