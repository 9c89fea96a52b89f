"""NS-Net: what is removed is what the captions span, and the loss is that of equation 12."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import conf_of
from torch.nn import functional as F

from nullscope import detectors
from nullscope.core.config import ParamsError
from nullscope.ops.contrastive import supervised_contrastive_loss
from nullscope.shards.loading import training_batches

CPU = torch.device("cpu")


def build(small, scope="global", rank=None, **changes):
    conf = {**conf_of("ns_net"), "null_space": {"scope": scope, "rank": rank, "energy": None}, **changes}
    detector = detectors.build("ns_net", conf, small.context, seed=0)
    data = small.data(detector)
    if data.text is not None:
        detector.see_captions(data.text.chunks())
    batch = next(training_batches(data.shards, detector.transform, batch_size=8, seed=0, epoch=0, skip=0, workers=0))
    return detector, batch.to(CPU, data.text)


def captions(small):
    detector, _ = build(small, rank=3)
    return small.data(detector).text.text_ND


def test_global_removes_the_leading_directions_of_all_training_captions(small):
    detector, batch = build(small, rank=3)
    _, _, rows = np.linalg.svd(F.normalize(captions(small).double(), dim=1).numpy())
    feature_BD = detector.features(dataclasses.replace(batch, text_BD=None)).detach().double().numpy()
    assert np.abs(feature_BD @ rows[:3].T).max() < 1e-5
    assert np.abs(feature_BD @ rows[3:12].T).max() > 1e-3  # the next ones are left


def test_batch_removes_every_caption_of_the_mini_batch(small):
    detector, batch = build(small, scope="batch")
    detector.train()
    feature_BD = detector.features(batch)
    assert (feature_BD @ F.normalize(batch.text_BD, dim=1).T).abs().max() < 1e-5


@pytest.mark.parametrize(("scope", "training"), [("sample", True), ("sample", False), ("batch", False)])
def test_an_image_is_taken_off_its_own_caption_alone(small, scope, training):
    """In testing ``batch`` too: a score must not depend on its neighbours."""
    detector, batch = build(small, scope=scope)
    detector.train(training)
    feature_BD = detector.features(batch)
    products_BB = (feature_BD @ F.normalize(batch.text_BD, dim=1).T).abs()
    assert products_BB.diagonal().max() < 1e-5 and products_BB.max() > 1e-3


def test_none_removes_nothing_and_needs_no_caption(small):
    detector, batch = build(small, scope="none")
    assert not detector.needs_captions and not detector.captions_at_inference
    batch = dataclasses.replace(batch, text_BD=None)
    assert torch.equal(detector.eval().features(batch), detector.clip(batch.inputs))


@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_a_missing_caption_is_an_error(small, scope):
    detector, batch = build(small, scope=scope)
    assert detector.captions_at_inference
    with pytest.raises(ValueError, match="expected the captions of the images, found none"):
        detector.eval()(dataclasses.replace(batch, text_BD=None))


@pytest.mark.parametrize("weight", [0.2, 0.7])
def test_loss_is_the_weighted_sum_of_equation_12(small, weight):
    detector, batch = build(small, rank=3, bce_weight=weight)
    detector.eval()  # no dropout: the two forward passes must agree
    losses = detector.losses(batch)
    feature_BD = detector.features(batch)
    logit_B = feature_BD @ detector.head.weight[0] + detector.head.bias
    bce = F.binary_cross_entropy_with_logits(logit_B, batch.is_fake_B)
    contrastive = supervised_contrastive_loss(feature_BD, batch.is_fake_B, temperature=0.07)
    torch.testing.assert_close(losses["bce"], weight * bce)
    torch.testing.assert_close(losses["contrastive"], (1 - weight) * contrastive)


def test_a_weight_of_one_leaves_the_contrastive_loss_out(small):
    detector, batch = build(small, rank=3, bce_weight=1.0)
    assert detector.losses(batch).keys() == {"bce"}


def test_more_directions_than_captions_span_is_an_error(small):
    with pytest.raises(ValueError, match="span only 12 directions"):
        build(small, rank=13)


def test_global_wants_exactly_one_rule(small):
    with pytest.raises(ParamsError, match="exactly one of rank and energy"):
        build(small, rank=None)
