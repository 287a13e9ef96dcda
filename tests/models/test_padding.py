import copy

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.padding import use_same_padding
from byol_edge.models.tracing import trace
from byol_edge.runtime.preprocessing import Preprocessing
from torch import nn


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0).eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_names_and_weights_stay(name: str):
    network = built(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    use_same_padding(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not network.training


@torch.no_grad()
@pytest.mark.parametrize("side", [49, 64, 96])
def test_the_map_has_as_many_pixels_and_on_even_sides_other_ones(side: int):
    network = built("resnet18")
    same = copy.deepcopy(network)
    use_same_padding(same)
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    one, other = network.forward_features(images), same.forward_features(images)  # pyright: ignore[reportCallIssue]
    assert one.shape == other.shape
    # 49 is 25, 13, 7, 4 after each layer of stride 2, all but the last odd, and there both pad alike.
    assert torch.equal(network.conv1(images), same.conv1(images)) == (side % 2 == 1)  # pyright: ignore[reportCallIssue]
    assert torch.allclose(one, other) == (side % 2 == 1)


def test_onnx_pads_alike(random: np.random.Generator):
    backbone = built("resnet18")
    use_same_padding(backbone)
    network = InferenceNetwork(backbone, Preprocessing(64))
    model = trace(network).model
    # Of the convolutions, the padding is part; it is the max-pool's that is a node.
    assert [node.name for node in model.graph.node if node.op_type == "Pad"] == ["maxpool"]
    pixels = random.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": pixels})[0]
    assert np.abs(np.asarray(found) - embed_pixels(network, pixels)).max() < 1e-5
