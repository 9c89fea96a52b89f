"""The supervised contrastive loss against NS-Net's equation 11, written as the double loop it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nullscope.ops.contrastive import supervised_contrastive_loss

properties = settings(derandomize=True, deadline=None, max_examples=60)


def loss_by_loops(feature: np.ndarray, is_fake: list[int], temperature: float) -> float:
    """Equation 11 for every anchor that has a positive, averaged over them; features first brought to unit length."""
    unit = [row / max(math.sqrt(sum(x * x for x in row)), 1e-12) for row in feature.astype(float)]
    terms = []
    for i, anchor in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        positives = [p for p in others if is_fake[p] == is_fake[i]]
        if not positives:
            continue
        similarity = {j: float(np.dot(anchor, unit[j])) / temperature for j in others}
        largest = max(similarity.values())  # log-sum-exp; math.exp overflows without it
        log_sum = largest + math.log(sum(math.exp(value - largest) for value in similarity.values()))
        terms.append(-sum(similarity[p] - log_sum for p in positives) / len(positives))
    return sum(terms) / len(terms) if terms else 0.0


def batch(count: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Random features and labels."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(count, width))).to(dtype), torch.from_numpy(rng.integers(2, size=count))


@properties
@given(count=st.integers(1, 20), width=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.01, 10))
def test_loss_equals_the_double_loop(count: int, width: int, seed: int, temperature: float) -> None:
    """For any batch, one with a lonely label or a single image among them."""
    feature, is_fake = batch(count, width, seed)
    expected = loss_by_loops(feature.numpy(), is_fake.tolist(), temperature)
    loss = supervised_contrastive_loss(feature, is_fake, temperature=temperature)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_the_denominator_runs_over_all_others_positives_included() -> None:
    """Two orthogonal pairs, by hand: similarity 1 with the partner, 0 with the two of the other label."""
    feature = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    loss = supervised_contrastive_loss(feature, torch.tensor([1, 1, 0, 0]), temperature=0.5)
    assert loss.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)))


def test_the_mean_over_positives_is_outside_the_logarithm() -> None:
    """Equation 11 averages logarithms (``L_out``); one logarithm of the averaged ratio would be smaller."""
    feature, is_fake = torch.tensor([[1.0, 0], [1, 0], [-1, 0]], dtype=torch.float64), torch.tensor([1, 1, 1])
    inside = -math.log((math.e / (math.e + math.e**-1) + math.e**-1 / (math.e + math.e**-1)) / 2)
    loss = supervised_contrastive_loss(feature, is_fake, temperature=1.0).item()
    assert loss == pytest.approx(loss_by_loops(feature.numpy(), [1, 1, 1], 1.0))
    assert loss > inside + 0.1


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1], [1]])
def test_gradient_is_that_of_finite_differences(labels: list[int]) -> None:
    """`torch.autograd.gradcheck` in float64, on mixed labels, one class, a lonely fake, no pair, one image."""
    feature = batch(len(labels), 5, seed=3)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda f: supervised_contrastive_loss(f, torch.tensor(labels), temperature=0.2), feature)


@pytest.mark.parametrize("labels", [[1], [0, 1]], ids=["one image", "one of each"])
def test_a_batch_without_a_pair_has_loss_and_gradient_zero(labels: list[int]) -> None:
    """Nothing to compare is nothing to learn: zero, still differentiable, never NaN."""
    feature = batch(len(labels), 5, seed=0)[0].requires_grad_()
    loss = supervised_contrastive_loss(feature, torch.tensor(labels), temperature=0.07)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(feature.grad, torch.zeros_like(feature))


def test_an_anchor_without_a_positive_has_no_term_but_stays_in_the_others_denominators() -> None:
    """One fake among three reals: the mean runs over the three reals, whose denominators hold the fake."""
    feature = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]], dtype=torch.float64)
    loss = supervised_contrastive_loss(feature, torch.tensor([0, 0, 0, 1]), temperature=1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (2 * math.e + 1)))


def test_a_batch_of_one_class_is_pulled_together() -> None:
    """No negatives: the loss is at its least, log(B - 1), where all features coincide."""
    same = supervised_contrastive_loss(torch.ones(5, 3), torch.ones(5), temperature=0.07)
    assert same.item() == pytest.approx(math.log(4), rel=1e-6)
    apart, _ = batch(5, 3, seed=1)
    assert supervised_contrastive_loss(apart, torch.ones(5), temperature=0.07) > same


@properties
@given(count=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_order_and_the_name_of_a_label_do_not_matter(count: int, seed: int) -> None:
    """The loss is one of the set of images, and symmetric in real and fake."""
    feature, is_fake = batch(count, 6, seed)
    loss = supervised_contrastive_loss(feature, is_fake, temperature=0.1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    torch.testing.assert_close(supervised_contrastive_loss(feature[order], is_fake[order], temperature=0.1), loss)
    torch.testing.assert_close(supervised_contrastive_loss(feature, 1 - is_fake, temperature=0.1), loss)
    torch.testing.assert_close(supervised_contrastive_loss(feature, is_fake.float(), temperature=0.1), loss)


@properties
@given(count=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_length_and_rotation_of_features_do_not_matter(count: int, seed: int) -> None:
    """Only directions between features count."""
    feature, is_fake = batch(count, 6, seed)
    rng = np.random.default_rng(seed)
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(6, 6)))[0])
    lengths = torch.from_numpy(rng.uniform(0.1, 100, size=(count, 1)))
    torch.testing.assert_close(
        supervised_contrastive_loss(feature * lengths @ rotation, is_fake, temperature=0.1),
        supervised_contrastive_loss(feature, is_fake, temperature=0.1),
    )


@pytest.mark.parametrize("temperature", [1e-8, 1e-4, 1e-2, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_temperatures_give_no_nan(temperature: float, dtype: torch.dtype) -> None:
    """Loss and gradient stay finite where the exponentials of the equation overflow or vanish."""
    feature, is_fake = batch(12, 4, seed=2, dtype=dtype)
    feature.requires_grad_()
    loss = supervised_contrastive_loss(feature, is_fake, temperature=temperature)
    loss.backward()
    assert loss.isfinite() and feature.grad.isfinite().all()
    assert loss.item() == pytest.approx(loss_by_loops(feature.detach().numpy(), is_fake.tolist(), temperature), rel=1e-4)


def test_equal_and_zero_features_give_no_nan() -> None:
    """Coinciding features and features of length zero have a finite loss and gradient."""
    for feature in (torch.ones(6, 4), torch.zeros(6, 4)):
        feature.requires_grad_()
        loss = supervised_contrastive_loss(feature, torch.tensor([0, 1, 0, 1, 0, 1]), temperature=0.07)
        loss.backward()
        assert loss.isfinite() and feature.grad.isfinite().all()


def test_training_on_it_separates_the_classes() -> None:
    """Descending the loss brings images of one label together and drives the two labels apart."""
    feature, _ = batch(16, 8, seed=0)
    is_fake = torch.arange(16) % 2
    feature.requires_grad_()
    optimizer = torch.optim.Adam([feature], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        supervised_contrastive_loss(feature, is_fake, temperature=0.1).backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(feature.detach(), dim=1)
    similarity, same = unit @ unit.T, is_fake[:, None] == is_fake[None]
    assert similarity[same].min() > 0.5 > 0.0 > similarity[~same].max()


def test_precision_holds_under_autocast() -> None:
    """Training runs under bfloat16 autocast: similarities of one part in 250, divided by 0.07, would be off by 0.06."""
    rng = np.random.default_rng(0)
    feature = torch.from_numpy(rng.normal(size=(32, 768)) * 0.1 + rng.normal(size=768)).float()  # as CLIP's: a large common part
    is_fake = torch.arange(32) % 2
    for features in (feature, feature.bfloat16()):  # the second is what a tower returns there
        with torch.autocast("cpu", torch.bfloat16):
            loss = supervised_contrastive_loss(features, is_fake, temperature=0.07)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(loss_by_loops(features.float().numpy(), is_fake.tolist(), 0.07), abs=1e-4)
