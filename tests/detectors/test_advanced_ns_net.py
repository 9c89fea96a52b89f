"""Advanced NS-Net: every equation of its page against a formula written another way, for the paper and for the notebook."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import PATCHES, conf_of, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nullscope import detectors
from nullscope.detectors.advanced_ns_net import SemanticMapper, log_of_sum_loss, off_own
from nullscope.detectors.base import Context
from nullscope.shards.loading import training_batches

PAPER, NOTEBOOK = "advanced_ns_net", "advanced_ns_net_notebook"
CPU = torch.device("cpu")
properties = settings(derandomize=True, deadline=None, max_examples=60)


def build(small, name=PAPER, **changes):
    """A detector and a batch of eight with captions."""
    detector = detectors.build(name, {**conf_of(name), **changes}, small.context, seed=0)
    data = small.data(detector)
    batch = next(training_batches(data.shards, detector.transform, batch_size=8, seed=0, epoch=0, skip=0, workers=0))
    return detector, batch.to(CPU, data.text)


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# The parts


def test_mapper_is_equation_14():
    mapper = SemanticMapper(6, 9, dropout=0.0).double()
    for number, parameter in enumerate(mapper.parameters()):
        parameter.data = random(number, *parameter.shape)
    w1, b1, w2, b2, gain, shift = (parameter.detach().numpy() for parameter in mapper.parameters())
    text = random(99, 4, 6)
    for row, mapped in zip(text.numpy(), mapper(text).detach().numpy(), strict=True):
        total = row + w2 @ np.maximum(w1 @ row + b1, 0) + b2
        expected = gain * (total - total.mean()) / np.sqrt(total.var() + 1e-5) + shift
        np.testing.assert_allclose(mapped, expected, rtol=0, atol=1e-12)


def test_parts_have_the_size_of_the_paper_at_the_width_of_vit_l_14(tmp_path):
    """768-1024-768 and 768-512-512-1 (section V), on any tower that ends in 768."""
    vision = {"image_size": PATCHES.mosaic_px, "layers": 1, "width": 16, "patch_size": 8, "head_width": 16}
    context = Context({"clip": write_clip(tmp_path / "clip", vision, width=768)}, PATCHES)
    detector = detectors.build(PAPER, conf_of(PAPER), context, seed=0)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in detector.named_children()}
    assert sizes["mapper"] == 1_576_192
    assert sizes["head"] + sizes["classifier"] == 656_897


def test_projection_is_the_explicit_matrix_of_equation_16():
    image, semantic = random(0, 5, 7), random(1, 5, 7)
    for u, m, projected in zip(image.numpy(), semantic.numpy(), off_own(image, semantic).numpy(), strict=True):
        np.testing.assert_allclose(projected, u @ (np.eye(7) - np.outer(m, m) / (m @ m)), rtol=0, atol=1e-12)


@properties
@given(count=st.integers(1, 6), width=st.integers(2, 40), length=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_projection_leaves_nothing_along_the_own_direction_and_all_beside_it(count, width, length, seed):
    """Orthogonal, idempotent, blind to the length of the direction, never longer than before."""
    image, semantic = random(seed, count, width), random(seed + 1, count, width)
    projected = off_own(image, length * semantic)
    unit = nn.functional.normalize(semantic, dim=1)
    assert (projected * unit).sum(1).abs().max() < 1e-12
    torch.testing.assert_close(image - projected, (image * unit).sum(1, keepdim=True) * unit, rtol=0, atol=1e-12)
    torch.testing.assert_close(off_own(projected, semantic), projected, rtol=0, atol=1e-12)
    assert (projected.norm(dim=1) <= image.norm(dim=1) + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_of_zero_removes_nothing(dtype):
    """Not even NaN from its gradient; below the clamp of 1e-8 ever less is removed."""
    image = random(0, 3, 5).to(dtype)
    semantic = torch.zeros(3, 5, dtype=dtype, requires_grad=True)
    projected = off_own(image, semantic)
    projected.sum().backward()
    assert torch.equal(projected.detach(), image) and semantic.grad.isfinite().all()
    short = torch.full((3, 5), 1e-5, dtype=dtype)  # |m|^2 = 5e-10, a twentieth of the clamp
    full = image.mean(1, keepdim=True).expand(-1, 5)
    torch.testing.assert_close(image - off_own(image, short), full * 0.05)


def log_of_sum_by_loops(feature, is_fake, temperature):
    """The notebook's contrastive loss, anchor by anchor."""
    unit = [row / np.linalg.norm(row) for row in feature]
    terms = []
    for i in range(len(unit)):
        value = {j: math.exp(float(unit[i] @ unit[j]) / temperature) for j in range(len(unit)) if j != i}
        positives = sum(value[j] for j in value if is_fake[j] == is_fake[i])
        terms.append(-math.log((positives + 1e-8) / (sum(value.values()) + 1e-8)))
    return sum(terms) / len(terms)


def mean_of_logs_by_loops(feature, is_fake, temperature):
    """Equation 18, averaged over the anchors that have a positive."""
    unit = [row / np.linalg.norm(row) for row in feature]
    terms = []
    for i in range(len(unit)):
        value = {j: math.exp(float(unit[i] @ unit[j]) / temperature) for j in range(len(unit)) if j != i}
        positives = [j for j in value if is_fake[j] == is_fake[i]]
        if positives:
            terms.append(-sum(math.log(value[p] / sum(value.values())) for p in positives) / len(positives))
    return sum(terms) / len(terms)


@properties
@given(count=st.integers(1, 16), width=st.integers(1, 9), seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.05, 5))
def test_log_of_sum_is_the_notebooks_loop(count, width, seed, temperature):
    """For any labels, a lonely one and a single image among them."""
    feature, is_fake = random(seed, count, width), torch.from_numpy(np.random.default_rng(seed).integers(2, size=count))
    expected = log_of_sum_by_loops(feature.numpy(), is_fake.tolist(), temperature)
    loss = log_of_sum_loss(feature, is_fake, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_an_anchor_without_a_positive_counts_in_the_notebooks_loss():
    """By hand: a fake orthogonal to two equal reals. It adds log(2 + 1e-8) - log(1e-8), about 19."""
    feature, is_fake = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64), torch.tensor([0, 0, 1])
    real = math.log((math.e + 1 + 1e-8) / (math.e + 1e-8))
    lonely = math.log((2 + 1e-8) / 1e-8)
    assert log_of_sum_loss(feature, is_fake, temperature=1.0).item() == pytest.approx((2 * real + lonely) / 3)


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1e4])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]])
def test_log_of_sum_stays_finite_where_its_exponentials_overflow(labels, temperature):
    feature = random(5, 6, 4).float().requires_grad_()
    loss = log_of_sum_loss(feature, torch.tensor(labels), temperature=temperature)
    loss.backward()
    assert loss.isfinite() and feature.grad.isfinite().all()


def test_log_of_sum_has_the_gradient_of_finite_differences():
    feature = random(2, 6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: log_of_sum_loss(f, torch.tensor([0, 1, 0, 0, 0, 0]), temperature=0.3), feature)


# The whole


@pytest.mark.parametrize("name", [PAPER, NOTEBOOK])
def test_the_head_sees_image_features_off_their_own_mapped_caption(small, name):
    detector, batch = build(small, name)
    seen = []
    detector.eval().head.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    feature = detector.features(batch)
    image, semantic = detector.clip(batch.inputs), detector.mapper(batch.text_BD)
    torch.testing.assert_close(seen[0], off_own(image, semantic))
    cosines = nn.functional.normalize(seen[0], dim=1) @ nn.functional.normalize(semantic, dim=1).T
    assert cosines.diagonal().abs().max() < 1e-5 and cosines.abs().max() > 1e-3  # off its own, not off the others'
    expected = nn.functional.normalize(seen[1], dim=1) if name == PAPER else seen[1]
    torch.testing.assert_close(feature, expected)


def by_numpy(detector, batch):
    """The unweighted terms of equation 21 of a detector in `eval`, in float64 from its tower's features on."""

    def linear(layer, rows):
        return rows @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()

    with torch.no_grad():
        image, text = detector.clip(batch.inputs).double().numpy(), batch.text_BD.double().numpy()
    mapper, label = detector.mapper, batch.is_fake_B.numpy()
    total = text + linear(mapper.mlp[3], np.maximum(linear(mapper.mlp[0], text), 0))
    semantic = (total - total.mean(1, keepdims=True)) / np.sqrt(total.var(1, keepdims=True) + 1e-5)  # gain 1, shift 0 at first
    projected = np.stack([u - m * (m @ u) / max(m @ m, 1e-8) for u, m in zip(image, semantic, strict=True)])
    raw = linear(detector.head[2], np.maximum(linear(detector.head[0], projected), 0))
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    params = detector.params
    logit = linear(detector.classifier, unit if params.classify == "unit" else raw)[:, 0]
    bce = sum(math.log1p(math.exp(-s if y else s)) for s, y in zip(logit, label, strict=True)) / len(label)
    squares = [sum((a - b) ** 2 for a, b in zip(m, u, strict=True)) for m, u in zip(semantic, image, strict=True)]
    align = sum(squares) / len(squares) / {"vector": 1, "element": image.shape[1]}[params.align]
    loops = {"mean_of_logs": mean_of_logs_by_loops, "log_of_sum": log_of_sum_by_loops}[params.positives]
    return {"contrastive": loops(raw, label, 0.07), "bce": bce, "align": align}


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        (PAPER, {}),
        (NOTEBOOK, {}),
        (PAPER, {"classify": "raw"}),
        (PAPER, {"positives": "log_of_sum"}),
        (PAPER, {"align": "element"}),
    ],
)
def test_losses_are_the_weighted_terms_of_equation_21(small, name, switch):
    """Of the paper, of the notebook, and of the paper with one switch of the notebook at a time."""
    detector, batch = build(small, name, **switch)
    terms, losses = by_numpy(detector.eval(), batch), detector.losses(batch)
    weights = {"contrastive": 1.0, "bce": 0.2, "align": 0.3}
    assert losses.keys() == weights.keys()
    for term, weight in weights.items():
        assert losses[term].item() == pytest.approx(weight * terms[term], rel=1e-5), term


def test_weights_are_named(small):
    detector, batch = build(small, bce_weight=0.7, align_weight=0.0, temperature=0.5)
    terms, losses = by_numpy(detector.eval(), batch), detector.losses(batch)
    assert losses["bce"].item() == pytest.approx(0.7 * terms["bce"], rel=1e-5)
    assert losses["align"].item() == 0
    assert losses["contrastive"].item() < terms["contrastive"]  # a softer temperature than 0.07


def reached(detector, loss):
    """The parts that a loss moves."""
    detector.zero_grad()
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


@pytest.mark.parametrize(("name", "tower"), [(PAPER, {"clip"}), (NOTEBOOK, set())])
def test_each_term_moves_what_it_should(small, name, tower):
    """L_align holds the image feature fixed: it moves the mapper alone. The others move the mapper through the projection."""
    detector, batch = build(small, name)
    detector.clip.rows_apart = False  # the way back through micro-batches can be gone once; here it is gone for every term
    losses = detector.train().losses(batch)
    assert reached(detector, losses["align"]) == {"mapper"}
    assert reached(detector, losses["contrastive"]) == {"mapper", "head"} | tower
    assert reached(detector, losses["bce"]) == {"mapper", "head", "classifier"} | tower


def test_losses_keep_float32_under_autocast(small):
    """In bfloat16 the projection would leave a part of what it removes, and the mapper would lose digits."""
    detector, batch = build(small)
    image = detector.eval().clip(batch.inputs).detach()
    detector.clip.forward = lambda inputs: image.bfloat16()
    plain = detector.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = detector.losses(batch)
    for term, loss in plain.items():
        assert mixed[term].dtype == torch.float32
        assert torch.equal(mixed[term], loss)


def test_another_caption_is_another_logit(small):
    detector, batch = build(small)
    swapped = dataclasses.replace(batch, text_BD=batch.text_BD.roll(1, 0))
    logits = detector.eval()(batch), detector(swapped)
    assert ((logits[0] - logits[1]).abs() > 1e-6).all()


@pytest.mark.parametrize("name", [PAPER, NOTEBOOK])
def test_a_missing_caption_is_an_error(small, name):
    detector, batch = build(small, name)
    assert detector.needs_captions and detector.captions_at_inference
    bare = dataclasses.replace(batch, text_BD=None)
    for ask in (detector, detector.features, detector.losses):
        with pytest.raises(ValueError, match="expected the captions of the images, found none"):
            ask(bare)


# The preset of the notebook


def test_the_notebook_differs_from_the_paper_where_the_page_says():
    paper, notebook = conf_of(PAPER), conf_of(NOTEBOOK)
    assert notebook.pop("method") == PAPER
    assert {key: value for key, value in notebook.items() if value != paper[key]} == {
        "lora": None,
        "mapper_dropout": 0.1,
        "classify": "raw",
        "positives": "log_of_sum",
        "align": "element",
    }
    assert notebook.keys() == paper.keys()


def test_the_notebooks_tower_is_frozen(small):
    detector, batch = build(small, NOTEBOOK)
    assert not any("lora" in name for name, _ in detector.named_parameters())
    assert not [name for name, p in detector.clip.named_parameters() if p.requires_grad]
    assert not detector.train().clip(batch.inputs).requires_grad
    assert any("lora" in name and p.requires_grad for name, p in build(small)[0].named_parameters())


def test_dropout_is_of_the_notebooks_training_only(small):
    """The paper's mapper says the same in training and in testing."""
    detector, batch = build(small, NOTEBOOK)
    assert not torch.equal(detector.train().semantics(batch), detector.semantics(batch))
    assert torch.equal(detector.eval().semantics(batch), detector.semantics(batch))
    paper, _ = build(small)
    assert torch.equal(paper.train().semantics(batch), paper.eval().semantics(batch))
