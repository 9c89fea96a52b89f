"""DGS-Net: the gradient at the image feature is equation 16, the teacher is the tower before training, each phase its own."""

import dataclasses
import gc
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import conf_of
from torch import nn

from nullscope import detectors, model_folder
from nullscope.backbones.image_encoder import ImageEncoder
from nullscope.shards.batch import Batch
from nullscope.shards.loading import training_batches
from nullscope.training import Training

CPU = torch.device("cpu")
PAPER = {"suppress": "task", "harmful": "positive", "helpful": "negative", "prior_scale": "sample", "epsilon": 0.0}
OFFICIAL = {**PAPER, "suppress": "sum", "prior_scale": "batch", "epsilon": 1e-6}
SUPPRESS, PARTS = ("none", "task", "sum"), ("positive", "negative", "all")

committed = cache(conf_of)


def build(small, name="dgs_net", seed=0, **changes):
    return detectors.build(name, {**committed(name), **changes}, small.context, seed=seed)


def first_batch(detector, small, size=8):
    data = small.data(detector)
    batch = next(training_batches(data.shards, detector.transform, batch_size=size, seed=0, epoch=0, skip=0, workers=0))
    return batch.to(CPU, data.text)


# The gradient at the image feature


class Features(nn.Module):
    """Stands in for the image tower: a leaf, whose gradient can be read, and another feature while frozen."""

    def __init__(self, feature_BD, frozen_BD):
        super().__init__()
        self.feature_BD, self.frozen_BD, self.off = feature_BD.requires_grad_(), frozen_BD, False

    def forward(self, inputs):
        return self.frozen_BD if self.off else self.feature_BD

    @contextmanager
    def frozen(self):
        self.off = True
        yield
        self.off = False


@dataclasses.dataclass
class Surgery:
    """A DGS-Net on given features, in a given type."""

    detector: nn.Module
    batch: Batch

    def run(self, **changes):
        """Return the losses with these parameters; gradients are on features and heads."""
        self.detector.params = self.detector.params.model_copy(update=changes)
        self.detector.zero_grad()
        self.detector.clip.feature_BD.grad = None
        losses = self.detector.losses(self.batch)
        self.detector.backward(losses)
        return losses

    @property
    def gradient_BD(self):
        return self.detector.clip.feature_BD.grad.numpy()


def surgery(small, name="dgs_net", dtype=torch.float64, count=10, **changes):
    """Random features and captions of ``count`` images, four tenths of them fake, and heads whose weights have both signs."""
    detector = build(small, name, **changes).to(dtype)
    rng = torch.Generator().manual_seed(1)
    feature_BD, frozen_BD, text_BD = torch.randn(3, count, detector.clip.width, generator=rng, dtype=torch.float64).to(dtype)
    detector.clip = Features(feature_BD.clone(), frozen_BD.clone())
    is_fake_B = (torch.arange(count) % 5 < 2).to(dtype)
    return Surgery(detector.train(), Batch({}, is_fake_B, [""] * count, text_BD.clone()))


def numbers(module):
    """Weights (D,) and bias of a head, in float64."""
    return module.weight.detach().double().numpy()[0], float(module.bias.detach())


def cross_entropy_gradient(head, input_D, is_fake):
    """(sigma - y) w: of one image's cross-entropy, by what the head sees."""
    weight_D, bias = numbers(head)
    return (1 / (1 + np.exp(-(input_D @ weight_D + bias))) - is_fake) * weight_D


def chosen(gradient_D, part):
    return {"positive": np.maximum(gradient_D, 0), "negative": np.minimum(gradient_D, 0), "all": gradient_D}[part]


def equation_16(detector, batch, params, prior_weight=0.2):
    """Image by image in float64, from sigma, y and the weights of the heads. All losses are means over the batch."""
    count, rows = len(batch.is_fake_B), []
    scale = {"sample": prior_weight, "batch": prior_weight / count}[params["prior_scale"]]
    images = (detector.clip.feature_BD.detach(), batch.text_BD, detector.clip.frozen_BD, batch.is_fake_B)
    for f, t, f0, y in zip(*(tensor.double().numpy() for tensor in images), strict=True):
        g_task = cross_entropy_gradient(detector.head, f, y) / count
        g_harm = chosen(cross_entropy_gradient(detector.text_head, t, y) / count, params["harmful"])
        g_help = chosen(cross_entropy_gradient(detector.frozen_head, f0, y) / count, params["helpful"])
        length = np.linalg.norm(g_harm) + params["epsilon"]
        projector = np.eye(len(f)) - (np.outer(g_harm, g_harm) / length**2 if length else 0)
        if params["suppress"] == "task":
            rows.append(projector @ g_task + scale * g_help)
        elif params["suppress"] == "sum":
            rows.append(projector @ (g_task + scale * g_help))
        else:
            rows.append(g_task + scale * g_help)
    return np.stack(rows)


def assert_equal_to_rounding(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "params"), [("dgs_net", PAPER), ("dgs_net_official", OFFICIAL)])
def test_presets_are_what_they_say_and_their_gradient_is_equation_16(small, name, params):
    """The paper projects the task's gradient and weighs the prior by lambda; the code projects the sum, by lambda / B."""
    case = surgery(small, name)
    assert {key: getattr(case.detector.params, key) for key in params} == params
    assert case.detector.params.prior_weight == 0.2
    case.run()
    assert_equal_to_rounding(case.gradient_BD, equation_16(case.detector, case.batch, params))


@pytest.mark.parametrize("base", [PAPER, OFFICIAL], ids=["paper", "official"])
@pytest.mark.parametrize("suppress", SUPPRESS)
def test_gradient_of_every_variant_is_the_closed_form(small, base, suppress):
    case = surgery(small)
    seen = []
    for harmful in PARTS:
        for helpful in PARTS:
            params = {**base, "suppress": suppress, "harmful": harmful, "helpful": helpful}
            case.run(**params)
            assert_equal_to_rounding(case.gradient_BD, equation_16(case.detector, case.batch, params))
            seen.append(case.gradient_BD.copy())
    differences = {np.abs(a - b).max() > 1e-6 for i, a in enumerate(seen) for b in seen[:i]}
    assert differences == ({True} if suppress != "none" else {True, False})  # without suppression no part is harmful


@pytest.mark.parametrize("name", ["dgs_net", "dgs_net_official"])
def test_float32_is_as_good_as_float32_can_be(small, name):
    case = surgery(small, name, dtype=torch.float32)
    case.run()
    params = PAPER if name == "dgs_net" else OFFICIAL
    expected = equation_16(case.detector, case.batch, params)
    np.testing.assert_allclose(case.gradient_BD, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_an_epsilon_of_the_size_of_the_gradient_weakens_the_suppression(small):
    """The code adds it to the norm, so that the direction is shorter than one: by a factor of four here, not by rounding."""
    case = surgery(small, "dgs_net_official")
    with torch.no_grad():
        case.detector.text_head.weight *= 1e-5
    case.run()
    assert_equal_to_rounding(case.gradient_BD, equation_16(case.detector, case.batch, OFFICIAL))
    whole = equation_16(case.detector, case.batch, {**OFFICIAL, "epsilon": 0.0})
    assert np.abs(case.gradient_BD - whole).max() > 0.01 * np.abs(whole).max()


def test_the_papers_direction_has_length_one_however_small_the_text_gradient_is(small):
    """Captions that tell the classes apart already leave a small gradient: in float32 too it is a direction, not an epsilon."""
    case = surgery(small, dtype=torch.float32)
    before = case.detector.harm(case.batch.text_BD, case.batch.is_fake_B)[1]
    with torch.no_grad():
        case.detector.text_head.weight *= 1e-14
    after = case.detector.harm(case.batch.text_BD, case.batch.is_fake_B)[1]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_suppression_leaves_nothing_along_the_harmful_direction_and_the_prior_brings_its_own_back(small):
    """Equation 11 alone is orthogonal to it; the paper's sum is not, the code's is."""
    case = surgery(small)
    harm_BD = case.detector.harm(case.batch.text_BD, case.batch.is_fake_B)[1].detach().numpy()
    np.testing.assert_allclose(np.linalg.norm(harm_BD, axis=1), 1, rtol=1e-12)
    along = {}
    for name, changes in {
        "equation 11": {**PAPER, "prior_weight": 0.0},
        "paper": {**PAPER, "prior_weight": 0.2},
        "code": {**OFFICIAL, "epsilon": 0.0},
    }.items():
        case.run(**changes)
        along[name] = np.abs((case.gradient_BD * harm_BD).sum(1)).max()
    assert along["equation 11"] < 1e-16 and along["code"] < 1e-16 and along["paper"] > 1e-4


@pytest.mark.parametrize("suppress", SUPPRESS)
@pytest.mark.parametrize("prior_scale", ["sample", "batch"])
def test_the_heads_learn_as_if_there_were_no_surgery(small, suppress, prior_scale):
    """Head and text head get the gradients of their plain cross-entropies; the teacher's head gets none."""
    case = surgery(small)
    case.run(suppress=suppress, prior_scale=prior_scale, epsilon=0.0)
    seen = {"head": case.detector.clip.feature_BD.detach(), "text_head": case.batch.text_BD}
    for name, input_BD in seen.items():
        head, x, y = getattr(case.detector, name), input_BD.numpy(), case.batch.is_fake_B.numpy()
        weight_D, bias = numbers(head)
        error_B = (1 / (1 + np.exp(-(x @ weight_D + bias))) - y) / len(y)
        assert_equal_to_rounding(head.weight.grad.numpy()[0], error_B @ x)
        assert_equal_to_rounding(head.bias.grad.numpy(), error_B.sum(keepdims=True))
    assert case.detector.frozen_head.weight.grad is None and case.detector.frozen_head.bias.grad is None


@pytest.mark.parametrize("params", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_loss_terms_are_those_of_equation_15(small, params):
    """L_img, L_text and lambda <f, g_help>, each a mean over the batch; surgery changes no loss."""
    case = surgery(small)
    losses = {name: float(loss.detach()) for name, loss in case.run(**params).items()}
    plain = {name: float(loss.detach()) for name, loss in case.run(**{**params, "suppress": "none"}).items()}
    assert losses == plain and losses.keys() == {"bce", "text", "align"}
    y = case.batch.is_fake_B.numpy()
    for term, head, input_BD in (
        ("bce", case.detector.head, case.detector.clip.feature_BD.detach()),
        ("text", case.detector.text_head, case.batch.text_BD),
    ):
        weight_D, bias = numbers(head)
        signed_B = (2 * y - 1) * (input_BD.numpy() @ weight_D + bias)
        assert losses[term] == pytest.approx(np.log1p(np.exp(-signed_B)).mean(), rel=1e-12)
    without = {**params, "suppress": "none"}
    prior_BD = equation_16(case.detector, case.batch, without) - equation_16(case.detector, case.batch, without, prior_weight=0)
    assert losses["align"] == pytest.approx((case.detector.clip.feature_BD.detach().numpy() * prior_BD).sum(), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("params", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_a_text_head_of_zeros_removes_nothing(small, params, dtype):
    """No text gradient, no direction: no NaN, and the gradient is that without suppression, to the bit."""
    case = surgery(small, dtype=dtype)
    nn.init.zeros_(case.detector.text_head.weight)
    losses = case.run(**params)
    found = case.gradient_BD.copy()
    assert all(torch.isfinite(loss) for loss in losses.values()) and np.isfinite(found).all()
    case.run(**{**params, "suppress": "none"})
    assert np.array_equal(found, case.gradient_BD)


@pytest.mark.parametrize("params", [PAPER, OFFICIAL], ids=["paper", "official"])
def test_an_image_without_a_harmful_part_keeps_its_gradient_beside_one_with_it(small, params):
    """A text head of positive weights: a fake's gradient, (sigma - 1) w, has no positive part, that of a real nothing else."""
    case = surgery(small)
    with torch.no_grad():
        case.detector.text_head.weight.abs_()
    case.run(**params)
    found, fake_B = case.gradient_BD.copy(), case.batch.is_fake_B.numpy() > 0
    assert_equal_to_rounding(found, equation_16(case.detector, case.batch, params))
    case.run(**{**params, "suppress": "none"})
    assert np.array_equal(found[fake_B], case.gradient_BD[fake_B])
    assert (np.abs(found - case.gradient_BD).max(1) > 1e-4)[~fake_B].all()


def test_all_fakes_share_one_harmful_direction_and_all_reals_another(small):
    """With linear heads; captions matter through the weights of the text head only. The page says so."""
    case = surgery(small)
    harm_BD = case.detector.harm(case.batch.text_BD, case.batch.is_fake_B)[1].detach()
    for is_fake in (0, 1):
        rows = harm_BD[case.batch.is_fake_B == is_fake]
        torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=0, atol=1e-12)
        other = torch.relu((1 - 2 * is_fake) * case.detector.text_head.weight[0].detach())
        torch.testing.assert_close(rows[0], other / other.norm(), rtol=0, atol=1e-12)


def test_equation_17_the_adapters_follow_the_edited_gradient(small):
    """What reaches the adapters of the real tower is the closed form, drawn through the tower by autograd alone."""
    detector = build(small).eval()  # no dropout: the two forward passes must agree
    adapters = {name: p for name, p in detector.clip.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    batch = first_batch(detector, small)
    detector.backward(detector.losses(batch))
    found = {name: p.grad.clone() for name, p in adapters.items()}

    feature_BD = detector.clip(batch.inputs)
    stub = Features(feature_BD.detach().clone(), detector.frozen_features(batch))
    tower, detector.clip = detector.clip, stub
    wanted_BD = torch.from_numpy(equation_16(detector, batch, PAPER)).float()
    detector.clip = tower
    expected = torch.autograd.grad(feature_BD, list(adapters.values()), wanted_BD)
    assert found
    for (name, gradient), wanted in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()), msg=name)


# The teacher


def trained(small, folder, **changes):
    detector = build(small, epochs=1, teacher_epochs=1, batch_size=8, **changes)
    for _ in Training(detector, small.data(detector), seed=0, device=CPU, scratch=folder).run():
        pass
    return detector


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_teachers_features_are_those_of_the_tower_before_training(small, tmp_path, mode):
    """To the bit, with dropout on and off, after training; the student's are not."""
    detector = trained(small, tmp_path, lr=1e-2).train(mode == "train")
    batch = first_batch(detector, small)
    with torch.no_grad():
        fresh = ImageEncoder(small.context.backbone("clip"), None, detector.params.statistics)
        untrained = fresh.train(mode == "train")(batch.inputs)  # in training both sum in micro-batches
        assert torch.equal(detector.frozen_features(batch), untrained)
        assert (detector.features(batch) - untrained).abs().max() > 1e-2
    assert not detector.frozen_features(batch).requires_grad


def test_no_second_copy_of_the_tower_is_held(small):
    """Everything that building a detector leaves in memory is one tower, its adapters and three heads."""

    def storages():
        gc.collect()
        # Of these types exactly: what a compilation in another test left behind has no storage.
        tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
        return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}

    def bytes_of(parameters):
        return sum(p.numel() * p.element_size() for p in parameters)

    encoder = ImageEncoder(small.context.backbone("clip"), None, "clip")
    tower = bytes_of(encoder.parameters())
    before = storages()
    detector = build(small)
    new = {place: size for place, size in storages().items() if place not in before}
    added = bytes_of(p for p in detector.parameters() if p.requires_grad)
    assert sum(new.values()) == tower + added
    assert tower > 10 * added


def test_bf16_gives_both_phases_the_same_teacher(small):
    """Its head meets in `main` the features it was trained on: the tower runs in bf16 in both phases, the heads in neither."""
    detector = build(small, precision="bf16").train()
    batch, seen = first_batch(detector, small), []
    detector.frozen_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    logits = []
    for head in (detector.head, detector.text_head, detector.frozen_head):
        head.register_forward_hook(lambda module, inputs, output: logits.append(output))
    for phase in ("frozen_head", "main"):
        detector.phase = phase
        with torch.autocast("cpu", torch.bfloat16):
            losses = detector.losses(batch)
        assert all(value.dtype == torch.float32 for value in (*losses.values(), *logits))
    assert len(logits) == 4
    assert torch.equal(*seen)
    exact = detector.frozen_features(batch)
    assert 0 < (seen[0] - exact).abs().max() < 0.05 * exact.abs().max()  # it was bf16


# Phases


def test_phases_in_their_order_each_moves_its_own_parameters_alone(small, tmp_path):
    """`frozen_head` moves the teacher's head and nothing else, `main` everything else that trains."""
    detector = build(small, epochs=1, teacher_epochs=2, batch_size=8)
    run = Training(detector, small.data(detector), seed=0, device=CPU, scratch=tmp_path)
    after = {0: {name: tensor.clone() for name, tensor in detector.state_dict().items()}}
    phases = detector.phases()
    for _ in run.run():  # the steps of a phase that are left are yielded together at its end
        after[len(run.history)] = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    states = [after[steps] for steps in (0, 10, 15)]
    assert [step.phase for step in run.history] == ["frozen_head"] * 10 + ["main"] * 5
    assert [set(step.losses) for step in run.history] == [{"frozen_bce"}] * 10 + [{"bce", "text", "align"}] * 5
    assert [(phase.name, phase.epochs, phase.lr) for phase in phases] == [("frozen_head", 2, 0.01), ("main", 1, 0.003)]
    moved = [{name for name in a if not torch.equal(a[name], b[name])} for a, b in pairwise(states)]
    heads = {f"{head}.{kind}" for head in ("head", "text_head") for kind in ("weight", "bias")}
    adapters = {f"clip.{name}" for name, p in detector.clip.named_parameters() if p.requires_grad}
    assert moved == [{"frozen_head.weight", "frozen_head.bias"}, heads | adapters]
    names = {parameter: name for name, parameter in detector.named_parameters()}
    assert [{names[parameter] for parameter in phase.parameters} for phase in phases] == moved
    assert len(adapters) == 2 * 3 * 2  # A and B of q, k and v of two blocks


def test_without_a_prior_there_is_no_teacher(small, tmp_path):
    """No phase, no loss, nothing of it saved; what is saved loads."""
    detector = trained(small, tmp_path / "scratch", prior_weight=0.0)
    assert [phase.name for phase in detector.phases()] == ["main"]
    assert detector.losses(first_batch(detector, small)).keys() == {"bce", "text"}
    weights = model_folder.kept(detector)
    assert weights and not any("frozen" in name for name in weights)
    fresh = build(small, prior_weight=0.0)
    model_folder.restore(fresh, weights)
    batch = first_batch(detector, small)
    assert torch.equal(fresh.eval()(batch), detector.eval()(batch))


# What it is without its parts


def test_without_suppression_and_prior_it_trains_as_clip_lora(small, tmp_path):
    """Same weights, same images, same dropout: the same gradients and, after an epoch, the same tower and head, to the bit."""
    dgs = build(small, suppress="none", prior_weight=0.0, epochs=1, batch_size=8)
    plain = build(small, "clip_lora", epochs=1, batch_size=8)
    shared = {name for name, parameter in plain.named_parameters() if parameter.requires_grad}
    plain.load_state_dict({name: tensor for name, tensor in dgs.state_dict().items() if name in plain.state_dict()})
    gradients = []
    for detector in (dgs, plain):
        torch.manual_seed(5)
        detector.train().backward(detector.losses(first_batch(dgs, small)))
        gradients.append({name: p.grad.clone() for name, p in detector.named_parameters() if name in shared})
        detector.zero_grad()
    assert len(shared) == 14
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in shared)
    for number, detector in enumerate((dgs, plain)):
        list(Training(detector, small.data(detector), seed=0, device=CPU, scratch=tmp_path / str(number)).run())
    found, expected = model_folder.kept(dgs), model_folder.kept(plain)
    assert all(torch.equal(found[name], expected[name]) for name in shared)


def test_a_test_image_needs_no_caption(small, tmp_path):
    detector = trained(small, tmp_path).eval()
    assert detector.needs_captions and not detector.captions_at_inference
    batch = first_batch(detector, small)
    assert torch.equal(detector(dataclasses.replace(batch, text_BD=None)), detector(batch))
