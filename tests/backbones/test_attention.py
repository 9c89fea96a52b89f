"""LoRA on open_clip: the six properties that tell a right adapter from one that only looks right (DESIGN, 4b)."""

import math

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nullscope.backbones.attention import PROJECTIONS, LoraParams, SplitAttention, add_lora, fused_state_dict, split_attention
from nullscope.core.config import ParamsError, validate

WIDTH, LAYERS = 48, 3
LORA = LoraParams(rank=6, alpha=6.0, dropout=0.8, rank_stabilised=True)


def stock_tower(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    vision = {"image_size": 32, "layers": LAYERS, "width": WIDTH, "patch_size": 8, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    return open_clip.model.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text, quick_gelu=True).visual.eval()


def split_tower(seed: int = 0) -> nn.Module:
    tower = stock_tower(seed).requires_grad_(False)
    split_attention(tower)
    return tower


def adapted_tower(params: LoraParams = LORA, seed: int = 0) -> nn.Module:
    tower = split_tower(seed)
    add_lora(tower, params)
    return tower


def trained(tower: nn.Module) -> nn.Module:
    """Put numbers into every B, as training would."""
    torch.manual_seed(1)
    for name, parameter in tower.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return tower


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_two_training_forwards_differ(images):
    tower = trained(adapted_tower()).train()
    assert not torch.equal(tower(images), tower(images))


def test_three_dropouts_act_in_every_block(images):
    tower, calls = trained(adapted_tower()).train(), []
    for module in tower.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_: calls.append(1))
    tower(images)
    assert len(calls) == 3 * LAYERS


def test_nothing_is_adapted_but_q_k_and_v():
    trainable = {name for name, parameter in adapted_tower().named_parameters() if parameter.requires_grad}
    expected = {
        f"transformer.resblocks.{block}.attn.{projection}.lora_{matrix}.default.weight"
        for block in range(LAYERS)
        for projection in PROJECTIONS
        for matrix in "AB"
    }
    assert trainable == expected


@pytest.mark.parametrize(("stabilised", "expected"), [(True, 6 / math.sqrt(6)), (False, 1.0)])
def test_scale_is_that_of_clip_lora(stabilised, expected):
    tower = adapted_tower(LoraParams(rank=6, alpha=6.0, dropout=0.8, rank_stabilised=stabilised))
    assert tower.transformer.resblocks[0].attn.q_proj.scaling == {"default": pytest.approx(expected, abs=0)}


def test_split_tower_equals_open_clips_own(images):
    """To the bit where the kernels are the same ones, which torch chooses; never further than rounding."""
    with torch.inference_mode():
        stock, split = stock_tower()(images), split_tower()(images)
    torch.testing.assert_close(split, stock, rtol=0, atol=1e-6)


def test_fresh_adapter_changes_nothing(images):
    with torch.inference_mode():
        assert torch.equal(adapted_tower().eval()(images), split_tower()(images))


def test_merged_weights_load_strictly_into_stock_open_clip(images):
    tower, stock = trained(adapted_tower()).eval(), stock_tower(seed=3)
    stock.load_state_dict(fused_state_dict(tower), strict=True)
    with torch.inference_mode():
        adapted, untouched = tower(images), split_tower()(images)
        torch.testing.assert_close(stock(images), adapted, rtol=0, atol=2e-6)
    assert (adapted - untouched).abs().max() > 1e-3  # the adapter did something


def test_forward_equals_the_official_layer():
    """W x + alpha / sqrt(r) * B A dropout(x), with A and B of the projection's own: MaxZanella/CLIP-LoRA loralib/layers.py."""
    layer = trained(adapted_tower()).transformer.resblocks[1].attn.v_proj.train()
    x = torch.rand(4, 7, WIDTH, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(7)
    found = layer(x)
    torch.manual_seed(7)
    a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
    expected = layer.get_base_layer()(x) + F.dropout(x, 0.8, training=True) @ a.T @ b.T * (6 / math.sqrt(6))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_attention_equals_the_fused_module_in_gradients_too(images):
    fused = nn.MultiheadAttention(WIDTH, 3, batch_first=True)
    split = SplitAttention(fused)
    x = torch.rand(2, 9, WIDTH, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    expected, found = fused(x, x, x, need_weights=False)[0], split(y, y, y)[0]
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(y.grad, x.grad, rtol=0, atol=1e-5)


def test_adapters_of_vit_l_14_count_as_in_the_papers():
    """3 x 12,288 of every block, 24 blocks: 884,736 (NS-Net and DGS-Net)."""
    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    with torch.device("meta"):
        tower = open_clip.model.CLIP(**config).visual.requires_grad_(False)
        split_attention(tower)
        add_lora(tower, LORA)
    assert sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad) == 884_736


# Adapters on the last blocks only


def adapted_blocks(tower: nn.Module) -> list[int]:
    """The numbers of the blocks in which anything trains."""
    return sorted({int(name.split(".")[2]) for name, parameter in tower.named_parameters() if parameter.requires_grad})


@pytest.mark.parametrize(("blocks", "expected"), [(None, [0, 1, 2]), (1, [2]), (2, [1, 2]), (3, [0, 1, 2])])
def test_the_last_blocks_are_adapted_each_as_ever(blocks, expected):
    tower = adapted_tower(LORA.model_copy(update={"blocks": blocks}))
    assert adapted_blocks(tower) == expected
    everything = {name for name, parameter in adapted_tower().named_parameters() if parameter.requires_grad}
    trainable = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name in everything if int(name.split(".")[2]) in expected}


def test_blocks_before_the_adapted_ones_compute_what_they_did(images):
    """With what training puts into the last block, the tokens that reach it are still those of the frozen tower."""
    tower, plain = trained(adapted_tower(LORA.model_copy(update={"blocks": 1}))).eval(), split_tower()
    tokens = []
    for each in (tower, plain):
        each.transformer.resblocks[LAYERS - 1].register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0]))
    with torch.inference_mode():
        assert (tower(images) - plain(images)).abs().max() > 1e-3
    assert torch.equal(*tokens)


def test_merged_weights_of_some_blocks_load_strictly_too(images):
    tower, stock = trained(adapted_tower(LORA.model_copy(update={"blocks": 2}))).eval(), stock_tower(seed=3)
    stock.load_state_dict(fused_state_dict(tower), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(stock(images), tower(images), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("blocks", "expected"), [(2, [22, 23]), (12, list(range(12, 24))), (23, list(range(1, 24)))])
def test_blocks_of_two_digits_are_not_taken_for_those_of_one(blocks, expected):
    """In the 24 blocks of ViT-L/14 number 2 is not 12, 20 or 22."""
    with torch.device("meta"):
        tower = open_clip.model.CLIP(**open_clip.get_model_config("ViT-L-14-quickgelu")).visual.requires_grad_(False)
        split_attention(tower)
        add_lora(tower, LORA.model_copy(update={"blocks": blocks}))
    assert adapted_blocks(tower) == expected
    assert sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad) == 36_864 * blocks


def test_more_blocks_than_the_tower_has_are_an_error_that_names_both():
    with pytest.raises(ValueError, match=r"at most the 3 blocks of the tower, found 4"):
        adapted_tower(LORA.model_copy(update={"blocks": 4}))


@pytest.mark.parametrize("blocks", [0, -1, 1.5, True])
def test_a_number_of_blocks_is_a_whole_one_of_at_least_one(blocks):
    with pytest.raises(ParamsError, match="blocks"):
        validate("lora", {**LORA.model_dump(), "blocks": blocks}, LoraParams)
