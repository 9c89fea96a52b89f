"""What is particular to UnivFD, VIB-Net, Effort, C2P-CLIP and AIDE; what every detector promises is in `test_contract`."""

import numpy as np
import open_clip
import pytest
import torch
from conftest import PATCHES, conf_of, write_convolutional_clip
from torch.nn import functional as F

from nullscope import detectors, model_folder
from nullscope.backbones.convnext import ConvNeXt
from nullscope.backbones.image_encoder import ImageEncoder
from nullscope.detectors.aide import Views
from nullscope.detectors.base import Context
from nullscope.detectors.c2p_clip import image_text_loss
from nullscope.detectors.effort import ResidualLinear, TiledCrop
from nullscope.detectors.vib_net import divergence
from nullscope.images.transforms import image_rng
from nullscope.model_facts import ModelFacts
from nullscope.ops.dct_windows import picked_windows
from nullscope.shards.batch import Batch
from nullscope.shards.loading import read_whole

CPU = torch.device("cpu")


def built(name, small, **changes):
    """A detector at the start of a training."""
    detector = detectors.build(name, {**conf_of(name), **changes}, small.context, seed=0)
    detector.begin(small.folder)
    return detector.eval()


def some(detector, small, size=6) -> Batch:
    (_, batch), *_ = next(iter(read_whole(small.shards(detector.transform.kind), detector.transform, workers=0))).batches(size)
    return batch.to(CPU)


def moved(detector):
    """Put other numbers into everything that trains."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in detector.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return detector


# Effort


def layers_of(detector) -> list[ResidualLinear]:
    return [module for module in detector.modules() if isinstance(module, ResidualLinear)]


@pytest.mark.parametrize(("mlp", "split"), [(False, 4), (True, 6)])
def test_effort_begins_as_the_pretrained_tower_to_the_last_bit(mlp, split, small):
    detector = built("effort", small, mlp=mlp)
    layers = layers_of(detector)
    assert len(layers) == split * len(detector.clip.tower.transformer.resblocks)
    assert all(torch.equal(layer.composed(), layer.weight) and layer.s.abs().sum() > 0 for layer in layers)
    plain = ImageEncoder(small.context.backbone("clip"), None, "clip").eval()
    plain.tower.proj = None
    batch = some(detector, small)
    assert torch.equal(detector.features(batch), plain(batch.inputs))


def test_effort_trains_the_last_singular_direction_and_freezes_the_others(small):
    """Against NumPy's decomposition: what is frozen is the weight without its last direction."""
    for layer in layers_of(built("effort", small)):
        u, s, v = np.linalg.svd(layer.weight.numpy().astype(np.float64))
        frozen = layer.weight - (layer.u_start * layer.s_start) @ layer.v_start
        np.testing.assert_allclose(frozen, (u[:, :-1] * s[:-1]) @ v[:-1], atol=1e-5)
        assert [tuple(parameter.shape) for _, parameter in layer.named_parameters() if parameter.requires_grad] == [
            (len(u), 1),
            (1,),
            (1, len(v)),
        ]


def test_effort_of_vit_l_14_trains_what_the_published_network_trains():
    """24 blocks of four weights of 1024 x 1024, and the head."""
    layer = ResidualLinear(torch.nn.Linear(1024, 1024), 1)
    own = sum(p.numel() for name, p in layer.named_parameters() if name in ("u", "s", "v"))
    assert 24 * 4 * own == 196_704


def test_effort_merged_gives_the_same_logits_and_plain_layers(small):
    detector = moved(built("effort", small))
    batch = some(detector, small)
    with torch.no_grad():
        apart = detector(batch)
        detector.merge()
        assert not layers_of(detector)
        torch.testing.assert_close(detector(batch), apart, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="were merged"):
        model_folder.kept(detector)


def test_effort_is_loaded_without_a_decomposition(small, tmp_path, monkeypatch):
    detector, params = moved(built("effort", small)), conf_of("effort")
    facts = ModelFacts(detector="effort", seed=0, params=params, patches=PATCHES.model_dump(), max_pixels=10**6, caption={})
    model_folder.save(tmp_path / "model", detector, facts, small.context.backbones)
    monkeypatch.setattr(torch.linalg, "svd", None)
    loaded, _ = model_folder.load_unmerged(tmp_path / "model")
    batch = some(detector, small)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(batch), detector(batch))


def test_effort_lays_small_images_out_side_by_side():
    image = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    seen = TiledCrop(32, 30, random=False, flip=0.0, min_side_px=1)(image, image_rng("00" * 32), training=False)["image"]
    assert seen.shape == (3, 32, 32)
    np.testing.assert_array_equal(seen.transpose(1, 2, 0), np.tile(image, (2, 2, 1))[4:36, 34:66])
    padded = TiledCrop(32, None, random=False, flip=0.0, min_side_px=1)(image, image_rng("00" * 32), training=False)["image"]
    assert not padded[:, :6].any() and padded[:, 6:26].any()


# VIB-Net


def test_vib_nets_scores_are_the_same_twice_and_its_training_is_noisy(small):
    detector = built("vib_net", small)
    batch = some(detector, small)
    with torch.no_grad():
        assert torch.equal(detector(batch), detector(batch))
        torch.manual_seed(0)
        losses = [detector.losses(batch) for _ in range(2)]
    assert losses[0]["bce"] != losses[1]["bce"] and losses[0]["kl"] == losses[1]["kl"]


def test_vib_nets_divergence_is_that_of_torch():
    mean, sigma = torch.randn(5, 7), torch.rand(5, 7) + 0.01
    one, other = torch.distributions.Normal(mean, sigma), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(divergence(mean, sigma), torch.distributions.kl_divergence(one, other).sum(1).mean())


# C2P-CLIP


def test_c2p_clips_loss_is_that_of_clip_where_all_captions_differ():
    image, text = F.normalize(torch.randn(6, 8), dim=1), torch.randn(6, 8)
    expected = open_clip.loss.ClipLoss()(image, F.normalize(text, dim=1), torch.tensor(20.0))
    torch.testing.assert_close(image_text_loss(image, text, 20.0), expected)


def test_an_image_is_not_pushed_off_the_equal_caption_of_another():
    image = F.normalize(torch.randn(4, 8), dim=1)
    text = torch.randn(4, 8)
    text[3] = text[1]
    logits = 20.0 * image @ F.normalize(text, dim=1).T
    rows, columns = logits.log_softmax(1), logits.log_softmax(0)
    by_hand = [
        -(table[0, 0] + table[2, 2] + sum(table[a, b] for a in (1, 3) for b in (1, 3)) / 2) / 4 for table in (rows, columns)
    ]
    torch.testing.assert_close(image_text_loss(image, text, 20.0), sum(by_hand) / 2)


# AIDE


def test_an_image_without_a_window_is_refused_with_the_size(small):
    with pytest.raises(ValueError, match="expected sides of 32 px or more, found 20x40"):
        picked_windows(np.zeros((40, 20, 3), np.uint8))
    assert detectors.build("aide", conf_of("aide"), small.context, seed=0).transform.min_side_px == 32


def test_a_single_window_is_shown_four_times():
    seen = Views(16, antialias=True, augmented=0.0)(
        np.random.default_rng(0).integers(0, 256, (40, 33, 3), dtype=np.uint8), image_rng("00" * 32), training=False
    )
    assert seen["windows"].shape == (4, 3, 32, 32) and (seen["windows"] == seen["windows"][0]).all()
    assert seen["image"].shape == (3, 16, 16) and seen["image"].dtype == np.float32


def test_aide_on_a_convnext_keeps_it_in_evaluation_mode(small, tmp_path):
    context = Context({"convnext": write_convolutional_clip(tmp_path / "convnext")}, PATCHES)
    params = {**conf_of("aide"), "global_network": "convnext"}
    detector = detectors.build("aide", params, context, seed=0).train()
    network = detector.experts.network
    assert isinstance(network, ConvNeXt) and detector.backbones == ("convnext",) and detector.experts.low.training
    assert not any(module.training for module in network.modules())
    images = torch.rand(4, 3, 64, 64)
    assert torch.equal(network(images), network(images)) and network(images).shape == (4, network.width)
    batch = some(detector, small)
    detector.backward(detector.losses(batch))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    facts = ModelFacts(detector="aide", seed=0, params=params, patches=PATCHES.model_dump(), max_pixels=10**6, caption={})
    model_folder.save(tmp_path / "model", detector, facts, context.backbones)
    loaded, _ = model_folder.load(tmp_path / "model", CPU)
    with torch.no_grad():
        assert torch.equal(loaded(batch), detector.eval()(batch))


@pytest.mark.parametrize(
    ("folder", "said"), [("empty", "encoder=vit_l_14_convnext"), ("clip", "is a ConvNeXt, found VisionTransformer")]
)
def test_another_network_in_its_place_is_refused(folder, said, small, tmp_path):
    (tmp_path / "empty").mkdir()
    place = small.context.backbone("clip") if folder == "clip" else tmp_path / "empty"
    with pytest.raises(ValueError, match=said):
        ConvNeXt(place)


# The plug-and-play parts


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("univfd", {"null_space": {"scope": "global", "rank": 3, "energy": None}}),
        ("vib_net", {"null_space": {"scope": "global", "rank": 3, "energy": None}}),
        ("vib_net", {"input": "patches", "augmented": 0.0}),
        ("dffreq", {"input": "patches"}),
        ("safe", {"input": "patches"}),
    ],
)
def test_null_space_and_patches_are_parts_of_other_detectors(name, changes, small):
    detector = built(name, small, **changes)
    assert detector.transform.kind == ("patches" if "input" in changes else "images")
    assert detector.needs_captions == ("null_space" in changes)
    if detector.needs_captions:
        detector.see_captions(small.data(detector).text.chunks())
        basis = detector.null_space.basis_DK
        assert basis.shape[1] == 3
        assert (detector.features(some(detector, small)) @ basis).abs().max() < 1e-5
    with torch.no_grad():
        assert torch.isfinite(detector(some(detector, small))).all()


@pytest.mark.parametrize("name", ["univfd", "vib_net"])
def test_augmentation_of_anything_but_crops_is_refused(name, small):
    with pytest.raises(ValueError, match="short_px and augmented are of input `crop`; found input `patches`"):
        built(name, small, input="patches", augmented=0.5)


def test_mosaics_reach_networks_on_pixels_in_the_order_of_the_image(small):
    """As they reach CLIP: the same pixels but for the statistics."""
    detector, clip = built("dffreq", small, input="patches"), built("linear_probe", small, input="patches", statistics="imagenet")
    inputs = some(detector, small).inputs
    assert "order" in inputs
    torch.testing.assert_close(detector.encoder.pixels(inputs), clip.clip.pixels(inputs))
