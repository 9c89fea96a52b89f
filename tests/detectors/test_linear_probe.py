"""The frozen probe: a logistic regression on features that nothing moves."""

import numpy as np
import pytest
import torch
from conftest import conf_of
from sklearn.linear_model import LogisticRegression
from torch import nn

from nullscope import detectors
from nullscope.backbones.image_encoder import ImageEncoder
from nullscope.shards.batch import Batch
from nullscope.shards.loading import training_batches
from nullscope.training import Training

CPU = torch.device("cpu")
REMOVED = {
    "none": {"scope": "none"},
    "global": {"scope": "global", "rank": 3},
    "batch": {"scope": "batch"},
    "sample": {"scope": "sample"},
}


def build(small, **changes):
    return detectors.build("linear_probe", {**conf_of("linear_probe"), **changes}, small.context, seed=0)


@pytest.mark.parametrize("scope", REMOVED)
def test_training_moves_the_head_and_not_a_byte_of_the_tower(small, tmp_path, scope):
    detector = build(small, epochs=2, batch_size=8, null_space=REMOVED[scope])
    assert not any(parameter.requires_grad for parameter in detector.clip.parameters())
    assert [p.shape for p in detector.phases()[0].parameters] == [(1, detector.clip.width), (1,)]
    before = {name: tensor.clone() for name, tensor in detector.clip.state_dict().items()}
    head = detector.head.weight.detach().clone()
    list(Training(detector, small.data(detector), seed=0, device=CPU, scratch=tmp_path).run())
    after = detector.clip.state_dict()
    assert before.keys() == after.keys() and len(before) > 20
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in detector.clip.parameters())
    assert not torch.equal(detector.head.weight, head)
    fresh = ImageEncoder(small.context.backbone("clip"), None, "clip").state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in fresh.items())


def test_its_features_are_those_of_the_clip_as_it_came(small):
    detector = build(small)
    batch = next(training_batches(small.shards("patches"), detector.transform, batch_size=8, seed=0, epoch=0, skip=0, workers=0))
    for mode in (True, False):
        expected = ImageEncoder(small.context.backbone("clip"), None, "clip").train(mode)(batch.inputs)
        features = detector.train(mode).features(batch)
        assert torch.equal(features, expected) and not features.requires_grad


# The solution is that of a logistic regression


def constant_input(small, count=160):
    """A probe with a constant input, and that many images whose labels say nothing of them: no hyperplane separates them."""
    detector = build(small, input="resize")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (1, 1, 3)) * rng.random((40, 56, 3)) for _ in range(count)]
    arrays = [detector.transform(image.astype(np.uint8), rng, training=True) for image in images]
    inputs = {name: torch.from_numpy(np.stack([each[name] for each in arrays])) for name in ("image", "flip")}
    is_fake_B = torch.from_numpy(rng.random(count) < 0.4).float()
    return detector, Batch(inputs, is_fake_B, [""] * count)


def logistic_regression(feature_BD, is_fake_B):
    """Scikit-learn's, without a penalty: weights (D,), bias."""
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=100_000).fit(feature_BD.double().numpy(), is_fake_B.numpy())
    return fitted.coef_[0], fitted.intercept_[0]


def test_training_stands_still_at_the_logistic_regression_of_its_features_and_nowhere_else(small):
    """The loss is convex: where its gradient is zero, there training ends."""
    detector, batch = constant_input(small)
    weight_D, bias = logistic_regression(detector.features(batch), batch.is_fake_B)
    sizes = []
    for factor in (1.0, 0.5):
        with torch.no_grad():
            detector.head.weight.copy_(factor * torch.from_numpy(weight_D))
            detector.head.bias.fill_(factor * bias)
        detector.zero_grad()
        detector.backward(detector.losses(batch))
        sizes.append(float(torch.cat([p.grad.flatten() for p in detector.head.parameters()]).abs().max()))
    assert sizes[0] < 1e-5 and sizes[1] > 1e-3


class Fixed(nn.Module):
    """Features that were computed once: a constant input of a constant tower."""

    def __init__(self, feature_BD):
        super().__init__()
        self.feature_BD = feature_BD

    def forward(self, inputs):
        return self.feature_BD


def test_trained_long_it_is_the_logistic_regression_of_its_features(small):
    """With its own optimiser; on whitened features, because Adam would need days along the weakest of a random tower."""
    detector, batch = constant_input(small)
    feature_BD = detector.features(batch).double()
    whitened_BD = torch.linalg.svd(feature_BD - feature_BD.mean(0), full_matrices=False)[0] * len(feature_BD) ** 0.5
    detector.clip, batch.is_fake_B = Fixed(whitened_BD), batch.is_fake_B.double()
    optimizer = detector.double().optimizer(detector.phases()[0])
    for _ in range(1500):
        optimizer.zero_grad()
        detector.backward(detector.losses(batch))
        optimizer.step()
    weight_D, bias = logistic_regression(whitened_BD, batch.is_fake_B)
    np.testing.assert_allclose(detector.head.weight.detach()[0], weight_D, rtol=0, atol=1e-3)
    assert float(detector.head.bias.detach()) == pytest.approx(bias, abs=1e-3)
    assert np.abs(weight_D).max() > 0.1
