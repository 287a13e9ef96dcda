from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork, map_pixels
from byol_edge.models.tail import build_tail
from byol_edge.models.weights import (
    load_encoder,
    read_state,
    read_tail,
    serialize_encoder,
    serialize_network,
    serialize_weights,
    untrained_encoder,
)
from byol_edge.runtime import Preprocessing, RunError
from byol_edge.runtime.run import EncoderSpec, Provenance, read_description
from torch import nn

SPEC = EncoderSpec("conv4", "standard", 256, Preprocessing(32))


def test_weights_come_back_as_they_were():
    backbone = build_backbone("conv4", 32)
    loaded = load_encoder(serialize_weights(backbone), SPEC, "w")
    assert not loaded.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_the_same_weights_are_the_same_bytes():
    backbone = build_backbone("conv4", 32)
    assert serialize_weights(backbone) == serialize_weights(backbone)


def test_weights_and_their_description_are_one_file_and_the_same_bytes():
    backbone = build_backbone("conv4", 32)
    provenance = Provenance(epoch=3, verdict="healthy: “ü”", versions={"torch": "2", "timm": "1"})
    content = serialize_encoder(backbone, SPEC, provenance)
    assert content == serialize_encoder(backbone, SPEC, provenance)
    description = read_description(content)
    assert EncoderSpec.from_json(description) == SPEC
    assert Provenance.from_json(description["provenance"]) == provenance
    loaded = load_encoder(content, SPEC, "w").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in backbone.state_dict().items())


def test_weights_of_another_network_are_refused_with_the_difference():
    other = nn.Sequential(nn.Conv2d(3, 32, 3))
    with pytest.raises(RunError, match=r"tensors differ from conv4: 0\.bias is not of conv4"):
        load_encoder(serialize_weights(other), SPEC, "w")


def test_weights_of_another_kind_of_number_are_refused():
    backbone = build_backbone("conv4", 32).half()
    with pytest.raises(RunError, match=r"conv1\.weight is torch\.float16, not torch\.float32|bn1.* is torch\.float16"):
        load_encoder(serialize_weights(backbone), SPEC, "w")


def test_damaged_weights_are_refused():
    with pytest.raises(RunError, match=r"w\.safetensors: not a safetensors file"):
        load_encoder(b"\x00" * 100, SPEC, "w.safetensors")


def test_a_spec_survives_json():
    assert EncoderSpec.from_json(SPEC.to_json()) == SPEC


def test_the_untrained_encoder_depends_on_the_seed_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, again, other = (untrained_encoder(SPEC, seed).get_parameter("conv1.weight") for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_whole_network_comes_back_with_its_tail_even_where_layers_share_weights():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    backbone[1].weight = backbone[0].weight
    tail = build_tail([(torch.ones(2, 4), torch.zeros(2))])
    network = InferenceNetwork(backbone, Preprocessing(32), tail)
    state = read_state(serialize_network(network), "w")
    assert set(state) == {*(f"backbone.{place}.{name}" for place in (0, 1) for name in ("weight", "bias")),
                          "tail.0.weight", "tail.0.bias"}  # fmt: skip
    assert torch.equal(state["backbone.1.weight"], backbone.get_parameter("0.weight"))
    assert torch.equal(read_tail(state, "w").get_parameter("0.weight"), torch.ones(2, 4))
    assert serialize_network(network) == serialize_network(network)


@pytest.mark.parametrize("name", ["tail.x.weight", "tail.0.weight"])
def test_a_tail_that_export_did_not_write_is_refused(name: str):
    with pytest.raises(RunError, match="w: what follows its backbone is not what export writes"):
        read_tail({name: torch.ones(2, 2)}, "w")


@pytest.mark.parametrize(
    ("name", "features"), [("resnet18", ["layer2", "layer3"]), ("tf_efficientnet_lite0", ["blocks.2", "blocks.4"])]
)
def test_timm_loads_them_and_gives_the_same_maps(name: str, features: list[str], tmp_path: Path):
    """As docs/anomalies.md says, for tools that take timm's networks; also where a last layer was added."""
    network = InferenceNetwork(build_backbone(name, 64), Preprocessing(64))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    tail = build_tail([(torch.eye(8), torch.zeros(8))])
    (tmp_path / "encoder.safetensors").write_bytes(serialize_weights(network.backbone, tail))
    theirs = timm.create_model(
        name,
        features_only=True,
        out_indices=(2, 3),
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "encoder.safetensors")},
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        found = theirs.eval()(network.inputs(torch.from_numpy(pixels)))
    maps = map_pixels(network, pixels, features)
    for each, its in zip(features, found, strict=True):
        np.testing.assert_allclose(its.numpy(), maps[each], atol=1e-4 * float(np.abs(maps[each]).max()))
