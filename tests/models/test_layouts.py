import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.layouts import find_names
from torch import Tensor, nn


def state_of(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize("copy", ["target_backbone.", "momentum_encoder.", "backbone_ema.", "module.teacher.net."])
def test_a_copy_is_passed_over(copy: str):
    network = build_backbone("conv4", 32)
    assert find_names(state_of(network, copy), network.state_dict()) is None
    both = state_of(network, copy) | state_of(network, "module.backbone.")
    names = find_names(both, network.state_dict())
    assert names is not None
    assert set(names.values()) == set(state_of(network, "module.backbone."))


def test_a_name_that_holds_the_word_of_a_copy_is_no_copy():
    network = build_backbone("conv4", 32)
    for prefix in ("semantic_encoder.", "retargeted.", "emalite."):
        names = find_names(state_of(network, prefix), network.state_dict())
        assert names is not None
        assert names["conv1.weight"] == f"{prefix}conv1.weight"


def test_the_numbered_children_of_a_resnet_are_found():
    # As in lightly's examples: nn.Sequential(*list(resnet.children())[:-1]).
    network = build_backbone("resnet18", 64)
    numbered = nn.Sequential(*list(network.children()))
    state = state_of(numbered, "backbone.") | {"projection_head.layers.0.weight": torch.zeros(3)}
    names = find_names(state, network.state_dict())
    assert names is not None
    for key, tensor in network.state_dict().items():
        assert torch.equal(state[names[key]], tensor), key
