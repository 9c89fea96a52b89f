"""A batch in micro-batches is the batch: the same features, gradients and random draws, on any number of CPUs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nullscope.backbones import microbatches
from nullscope.backbones.attention import LoraParams
from nullscope.backbones.image_encoder import ImageEncoder
from nullscope.backbones.sharing import RowDropout
from nullscope.core import launcher

ROWS = 10  # in 4 micro-batches: 3, 3, 2 and 2
DROPOUT = 0.8


def encoder_of(small, dropout: float, *, adapted: bool = True) -> ImageEncoder:
    """An encoder in training whose adapters, if it has some, change its features."""
    torch.manual_seed(0)
    lora = LoraParams(rank=2, alpha=2.0, dropout=dropout, rank_stabilised=False) if adapted else None
    encoder = ImageEncoder(small.context.backbone("clip"), lora, "clip").train()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return encoder


@pytest.fixture
def inputs(small) -> dict[str, torch.Tensor]:
    side, rng = small.context.patches.mosaic_px, torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (ROWS, 3, side, side), dtype=torch.uint8, generator=rng)
    return {"image": image, "flip": torch.rand(ROWS, generator=rng) < 0.5}


def step(encoder: ImageEncoder, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Features and gradients of one step whose loss compares all images."""
    torch.manual_seed(7)
    encoder.zero_grad(set_to_none=True)
    feature_BD = encoder(inputs)
    (F.normalize(feature_BD) @ F.normalize(feature_BD).T).square().triu(1).sum().backward()
    return [feature_BD.detach(), *(parameter.grad for parameter in encoder.parameters() if parameter.requires_grad)]


def test_features_and_gradients_are_those_of_the_whole_batch(small, inputs):
    encoder = encoder_of(small, 0.0)
    whole = copy.deepcopy(encoder)
    whole.rows_apart = False
    found, expected = step(encoder, inputs), step(whole, inputs)
    assert len(found) > 5 and all(own.abs().max() > 1e-4 for own in expected)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_the_number_of_cpus_changes_no_bit(small, inputs, monkeypatch):
    """Whichever micro-batch is done first; dropout included."""
    encoder, results = encoder_of(small, DROPOUT), []
    for cpus in (1, 2, 3, 2):
        monkeypatch.setattr(launcher, "cpus", lambda cpus=cpus: cpus)
        results.append(step(encoder, inputs))
    for other in results[1:]:
        assert all(torch.equal(own, first) for own, first in zip(other, results[0], strict=True))


@pytest.mark.parametrize("count", [1, 3, 32])
def test_the_number_of_micro_batches_changes_no_draw(small, inputs, monkeypatch, count):
    """Another number sums in another order, and drops the same."""
    encoder = encoder_of(small, DROPOUT)
    expected = step(encoder, inputs)
    monkeypatch.setattr(microbatches, "COUNT", count)
    for own, other in zip(step(encoder, inputs), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def dropped(rows: int, first: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What is left of ones, (rows, 40, 50)."""
    torch.manual_seed(3)
    module, ones = RowDropout(DROPOUT), {"ones": torch.ones(rows, 40, 50, dtype=dtype)}
    with torch.no_grad():
        return microbatches.encode_in_microbatches(lambda inputs: module(inputs["ones"]), ones, first, [nn.Parameter()])


def test_where_nothing_trains_nothing_is_drawn(small, inputs):
    """And a dropout that is reached all the same is an error, not a draw from the generator that all lanes share."""
    encoder = encoder_of(small, 0.0, adapted=False)
    state = torch.get_rng_state()
    encoder(inputs)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError):
        microbatches.encode_in_microbatches(lambda own: RowDropout(DROPOUT)(own["x"]), {"x": torch.ones(5, 3)}, 0, [])


def test_dropout_keeps_its_share_and_the_mean():
    left = dropped(ROWS)
    assert left.unique().tolist() == pytest.approx([0, 1 / (1 - DROPOUT)])
    kept = (left > 0).float()
    error = (DROPOUT * (1 - DROPOUT) / kept.numel()) ** 0.5
    assert abs(kept.mean() - (1 - DROPOUT)) < 4 * error
    rows = kept.flatten(1)
    overlap = (rows @ rows.T / rows.shape[1])[torch.triu_indices(ROWS, ROWS, 1).unbind()]
    assert (overlap - (1 - DROPOUT) ** 2).abs().max() < 0.05  # rows draw apart from each other


def test_dropout_of_a_row_depends_on_its_place_in_the_batch_alone():
    """So a rank that has the rows from the fifth on drops what one rank would of them."""
    assert torch.equal(dropped(ROWS)[4:], dropped(ROWS - 4, first=4))
    assert torch.equal(dropped(ROWS, dtype=torch.bfloat16), dropped(ROWS).to(torch.bfloat16))


def test_two_forward_passes_drop_other_entries(small, inputs):
    encoder = encoder_of(small, DROPOUT)
    torch.manual_seed(0)
    assert not torch.equal(encoder(inputs), encoder(inputs))


def test_frozen_rows_have_no_graph_and_the_same_features(small, inputs):
    """The tower of a probe, and a tower that is asked for its frozen features."""
    frozen, adapted = encoder_of(small, 0.0, adapted=False), encoder_of(small, DROPOUT)
    found = frozen(inputs)
    assert not found.requires_grad
    torch.testing.assert_close(found, frozen.eval()(inputs), rtol=1e-4, atol=1e-5)
    with torch.no_grad(), adapted.frozen():
        torch.testing.assert_close(adapted(inputs), found, rtol=1e-4, atol=1e-5)


def test_in_testing_there_are_no_micro_batches(small, inputs, monkeypatch):
    encoder = encoder_of(small, DROPOUT).eval()
    monkeypatch.setattr(microbatches, "encode_in_microbatches", lambda *_: pytest.fail("cut"))
    encoder(inputs)


def test_autocast_reaches_the_lanes(small, inputs, monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: 2)
    encoder = encoder_of(small, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(inputs).dtype == torch.bfloat16
    assert encoder(inputs).dtype == torch.float32


def test_a_second_way_back_is_refused(small, inputs):
    """A micro-batch's graph is gone after the first one; nothing is added twice, or not at all, in silence."""
    loss = encoder_of(small, 0.0)(inputs).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
