from typing import TypeGuard

import pytest
import torch
from byol_edge.models.backbones import build_backbone, conv4, embedding_size, resolve_stem
from byol_edge.runtime.errors import UsageError
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from torch import nn


def test_conv4_is_four_strided_convolutions():
    backbone = conv4()
    convolutions = [layer for layer in backbone if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 64, 128, 256]
    assert all(layer.kernel_size == (3, 3) and layer.stride == (2, 2) for layer in convolutions)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in backbone) == 4
    assert backbone(torch.zeros(2, 3, 50, 30)).shape == (2, 256)


@pytest.mark.parametrize(("size", "stem", "small"), [(32, "auto", True), (64, "auto", False), (64, "small", True)])
def test_small_images_get_the_small_stem(size: int, stem: str, small: bool):
    backbone = build_backbone("resnet18", size, resolve_stem("resnet18", size, stem))
    assert backbone.get_parameter("conv1.weight").shape[2:] == ((3, 3) if small else (7, 7))
    assert isinstance(backbone.maxpool, nn.Identity) == small
    assert backbone(torch.zeros(1, 3, size, size)).shape == (1, 512)


def test_the_standard_stem_can_be_asked_for_at_32_pixels():
    backbone = build_backbone("resnet18", 32, "standard")
    assert backbone.get_parameter("conv1.weight").shape[2:] == (7, 7)
    assert resolve_stem("resnet18", 32, "standard") == "standard"


@pytest.mark.parametrize("name", ["conv4", "mobilenetv3_small_100"])
def test_the_small_stem_is_refused_where_there_is_none(name: str):
    with pytest.raises(UsageError, match="for ResNets"):
        resolve_stem(name, 32, "small")


def test_finding_the_stem_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    resolve_stem("resnet18", 32, "auto")
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_stem_is_refused():
    with pytest.raises(UsageError, match="standard, small"):
        resolve_stem("resnet18", 32, "tiny")


def test_an_unknown_backbone_is_answered_with_the_nearest_names():
    with pytest.raises(UsageError, match="resnet18"):
        build_backbone("resnet-18", 64)
    with pytest.raises(UsageError, match="no backbone 'x9'"):
        build_backbone("x9", 64)


def test_the_embedding_size_is_what_comes_out():
    # timm's num_features says 576 for this one, its head puts out 1024.
    backbone = build_backbone("mobilenetv3_small_100", 32).train()
    assert embedding_size(backbone, 32) == backbone.eval()(torch.zeros(1, 3, 32, 32)).shape[1] == 1024


def test_a_transformer_is_built_for_the_image_size():
    assert embedding_size(build_backbone("vit_tiny_patch16_224", 64), 64) == 192


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "mobilenetv4_conv_small", "tf_efficientnet_lite0"])
def test_residual_blocks_of_narrow_networks_start_as_their_skip_connection(name: str):
    backbone = build_backbone(name, 64).train()
    unchanged: list[bool] = []
    for block in backbone.modules():
        if getattr(block, "has_skip", False):
            block.register_forward_hook(lambda _, inputs, output: unchanged.append(torch.equal(output, inputs[0])))
    backbone(torch.randn(4, 3, 64, 64))
    assert len(unchanged) >= 6
    assert all(unchanged)


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_one_branch_of_each_block_starts_alone(name: str):
    backbone = build_backbone(name, 64)
    blocks = [module for module in backbone.modules() if isinstance(module, (RepVggBlock, MobileOneBlock))]
    assert len(blocks) > 20
    for block in blocks:
        norms = {name: each for name, each in block.named_modules() if isinstance(each, nn.BatchNorm2d)}
        heard = {name: float(norm.bias.detach().mean()) for name, norm in norms.items() if norm.weight.any()}
        assert heard == ({"identity": 1} if "identity" in norms else {next(iter(norms)): 1})


def test_norms_before_an_activation_start_in_its_linear_part():
    backbone = build_backbone("mobilenetv4_conv_small", 64)
    stem = backbone.get_submodule("bn1")
    assert isinstance(stem, nn.BatchNorm2d)
    assert (stem.bias == 1).all() and (stem.weight == 1).all()
    assert all((norm.bias == 0).all() for norm in build_backbone("resnet18", 64).modules() if is_norm(norm))


def is_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return isinstance(module, nn.BatchNorm2d)


EDGE_NETWORKS = (
    "resnet18",
    "resnet50",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "repvgg_a0",
    "mobileone_s0",
    "conv4",
)


@pytest.mark.parametrize("name", EDGE_NETWORKS)
def test_edge_networks_follow_their_batches_at_the_rate_of_the_recipe_of_record(name: str):
    backbone = build_backbone(name, 32, "standard")
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {norm.momentum for norm in norms} == {0.1}
    assert embedding_size(backbone, 32) > 200
