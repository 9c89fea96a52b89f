"""The image encoder: what the tower is shown, and the tower as it was pre-trained, on demand."""

import threading

import numpy as np
import open_clip
import pytest
import torch
from conftest import PATCHES, WIDTH

from nullscope.backbones.attention import LoraParams
from nullscope.backbones.image_encoder import ImageEncoder
from nullscope.ops.pixels import IMAGENET_MEAN, IMAGENET_STD

LORA = LoraParams(rank=4, alpha=4.0, dropout=0.5, rank_stabilised=True)
SIDE = PATCHES.mosaic_px


@pytest.fixture
def clip(small):
    return small.context.backbone("clip")


def adapted(clip, lora=LORA):
    """An encoder whose adapters do something."""
    torch.manual_seed(0)
    encoder = ImageEncoder(clip, lora, "clip")
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return encoder


def inputs(count=3, *, cells=True):
    rng = torch.Generator().manual_seed(0)
    found = {
        "image": torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=rng),
        "flip": torch.arange(count) % 2 == 0,
    }
    if cells:
        found["order"] = torch.stack([torch.randperm(PATCHES.cells, generator=rng) for _ in range(count)])
    return found


def switches(encoder):
    return {name: parameter.requires_grad for name, parameter in encoder.named_parameters()}


# What the tower is shown


def shown_by_hand(image_CHW, order, flip, mean, std):
    """Cell i shows what was cell ``order[i]``; then the whole is mirrored; then it is normalised."""
    pixels = image_CHW.numpy().astype(np.float64)
    if order is not None:
        grid, side = PATCHES.grid, PATCHES.patch_px
        cut = [pixels[:, r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(grid) for c in range(grid)]
        rows = [np.concatenate([cut[order[r * grid + c]] for c in range(grid)], axis=2) for r in range(grid)]
        pixels = np.concatenate(rows, axis=1)
    if flip:
        pixels = pixels[:, :, ::-1]
    return (pixels / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]


@pytest.mark.parametrize("cells", [True, False], ids=["mosaic", "whole"])
@pytest.mark.parametrize(
    ("statistics", "mean", "std"), [("clip", [0.5] * 3, [0.25] * 3), ("imagenet", IMAGENET_MEAN, IMAGENET_STD)]
)
def test_pixels_are_laid_out_mirrored_and_normalised(clip, cells, statistics, mean, std):
    """A mosaic's cells in their order, an image without an order as it is; the statistics that were asked for."""
    batch = inputs(cells=cells)
    found = ImageEncoder(clip, None, statistics).pixels(batch)
    assert found.dtype == torch.float32
    for row in range(3):
        order = batch["order"][row].tolist() if cells else None
        expected = shown_by_hand(batch["image"][row], order, bool(batch["flip"][row]), mean, std)
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-5)


def test_without_lora_it_is_open_clips_tower_and_nothing_trains(clip):
    encoder = ImageEncoder(clip, None, "clip")
    stock = open_clip.create_model(f"local-dir:{clip}", precision="fp32", weights_only=True).visual.eval()
    with torch.inference_mode():
        found = encoder(inputs())
        torch.testing.assert_close(found, stock(encoder.pixels(inputs())), rtol=0, atol=1e-5)
    assert found.shape == (3, WIDTH) and encoder.width == WIDTH
    assert not any(switches(encoder).values())


def test_with_lora_only_the_adapters_train(clip):
    trainable = {name for name, trains in switches(adapted(clip)).items() if trains}
    assert len(trainable) == 2 * 3 * 2 and all("lora_" in name for name in trainable)
    last = {name for name, trains in switches(adapted(clip, LORA.model_copy(update={"blocks": 1}))).items() if trains}
    assert last == {name for name in trainable if ".resblocks.1." in name}


# The tower as it was pre-trained


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "lora", [LORA, LORA.model_copy(update={"blocks": 1}), None], ids=["all blocks", "the last block", "none"]
)
def test_frozen_is_the_pre_trained_tower_to_the_bit(clip, training, lora):
    encoder = adapted(clip, lora).train(training)
    with torch.no_grad():
        expected = ImageEncoder(clip, None, "clip")(inputs())
        with encoder.frozen():
            assert torch.equal(encoder(inputs()), expected)
        difference = (encoder(inputs()) - expected).abs().max()
    assert difference > 0.1 if lora else difference == 0


def test_frozen_draws_no_random_number(clip):
    """Whether a teacher looks on or not, the student's dropout is the same."""
    encoder = adapted(clip).train()
    state = torch.get_rng_state()
    with encoder.frozen():
        encoder(inputs())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_within_it_nothing_trains_and_afterwards_everything_is_as_before(clip, training):
    encoder = adapted(clip).train(training)
    before, features = switches(encoder), encoder.eval()(inputs()).detach()
    with encoder.train(training).frozen():
        assert not encoder(inputs()).requires_grad
    encoder.eval()
    assert switches(encoder) == before and any(before.values())
    assert torch.equal(encoder(inputs()), features)


def test_an_exception_within_it_leaves_nothing_off(clip):
    encoder = adapted(clip).eval()
    before, features = switches(encoder), encoder(inputs()).detach()
    with pytest.raises(RuntimeError, match="in the middle"), encoder.frozen():
        raise RuntimeError("in the middle")
    assert switches(encoder) == before
    assert torch.equal(encoder(inputs()), features)


def test_frozen_is_of_one_thread(clip):
    """While one image is computed without adapters, another one is computed with them."""
    encoder, off, done = adapted(clip).eval(), threading.Event(), threading.Event()
    features = encoder(inputs()).detach()

    def turn_off() -> None:
        with encoder.frozen():
            off.set()
            done.wait(20)

    other = threading.Thread(target=turn_off)
    other.start()
    off.wait(20)
    found = encoder(inputs()).detach()
    done.set()
    other.join()
    assert torch.equal(found, features)


def test_frozen_within_frozen_stays_frozen_to_the_outer_end(clip):
    encoder = adapted(clip).eval()
    with torch.no_grad():
        untrained, features = ImageEncoder(clip, None, "clip")(inputs()), encoder(inputs())
        with encoder.frozen():
            with encoder.frozen():
                pass
            assert torch.equal(encoder(inputs()), untrained)
        assert torch.equal(encoder(inputs()), features)
    assert any(switches(encoder).values())


def test_a_graph_from_before_is_not_cut(clip):
    """The student's feature first, then the teacher's: the gradient still reaches every adapter, and is the same one."""
    encoder, gradients = adapted(clip).eval(), []
    adapters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    for look in (False, True):
        encoder.zero_grad()
        feature_BD = encoder(inputs())
        if look:
            with torch.no_grad(), encoder.frozen():
                encoder(inputs())
        feature_BD.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in adapters])
    assert all(torch.equal(a, b) and a.abs().max() > 0 for a, b in zip(*gradients, strict=True))
