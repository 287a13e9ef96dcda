from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from byol_edge.models.fusion import Fusion, build_untrained, list_backbones, load_fusion
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.tail import build_tail
from byol_edge.models.tracing import trace
from byol_edge.models.weights import serialize_weights, untrained_encoder
from byol_edge.runtime import RunError
from byol_edge.runtime.fusion import FusionSpec
from byol_edge.runtime.preprocessing import Preprocessing
from byol_edge.runtime.run import EncoderSpec
from torch import Tensor, nn

PLAIN = Preprocessing(16, (0, 0, 0), (1, 1, 1))
OTHER = Preprocessing(16, (0.5, 0.25, 0.1), (0.2, 0.5, 0.4))
SPEC = FusionSpec(EncoderSpec("conv4", "standard", 256, PLAIN), EncoderSpec("conv4", "standard", 8, OTHER), 0.25, 264)


class Fixed(nn.Module):
    """The same vector for every image."""

    def __init__(self, *vector: float) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.tensor([vector], dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.vector.expand(len(inputs), -1)


class Means(nn.Module):
    """The mean of each channel, as the network sees it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3))


def network(backbone: nn.Module, preprocessing: Preprocessing = PLAIN, tail: nn.Module | None = None):
    return InferenceNetwork(backbone, preprocessing, tail)


def draw(count: int = 4, side: int = 16):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def conv4(seed: int) -> nn.Module:
    return untrained_encoder(SPEC.first, seed)


def tail(seed: int = 0, outputs: int = 8) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    return build_tail([(torch.randn(outputs, 256, generator=generator), torch.randn(outputs, generator=generator))])


def fused(weight: float = 0.25) -> InferenceNetwork:
    """Of conv4 and of conv4 with a tail and a normalization of its own."""
    return network(Fusion(network(conv4(0)), network(conv4(1), OTHER, tail()), weight))


def test_vectors_lie_side_by_side_each_of_its_weighted_length():
    # (3, 4) and (0, 0, 2) of unit length are (0.6, 0.8) and (0, 0, 1); √0.36 = 0.6, √0.64 = 0.8
    both = network(Fusion(network(Fixed(3, 4)), network(Fixed(0, 0, 2)), 0.36))
    np.testing.assert_allclose(embed_pixels(both, draw(1)), [[0.36, 0.48, 0, 0, 0.8]], atol=1e-6)


def test_without_a_direction_of_one_the_other_is_all():
    both = network(Fusion(network(Fixed(0, 0)), network(Fixed(0, 5)), 0.5))
    np.testing.assert_allclose(embed_pixels(both, draw(1)), [[0, 0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("weight", [0.25, 0.9])
def test_a_cosine_is_the_weighted_mean_of_both(weight: float):
    pixels = draw()
    found, first, second = (
        embed_pixels(each, pixels) for each in (fused(weight), network(conv4(0)), network(conv4(1), OTHER, tail()))
    )
    assert found.shape == (4, 264)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found @ found.T, weight * first @ first.T + (1 - weight) * second @ second.T, atol=1e-6)


def test_each_sees_the_pixels_as_it_scales_them():
    both = network(Fusion(network(Means()), network(Means(), OTHER), 0.5))
    pixels = draw()
    expected = [embed_pixels(network(Means(), each), pixels) for each in (PLAIN, OTHER)]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(embed_pixels(both, pixels), np.concatenate(expected, 1) * 0.5**0.5, atol=1e-6)


def test_the_same_scaling_is_not_computed_twice():
    same, other = (Fusion(network(Means()), network(Means(), each), 0.5).second_input for each in (PLAIN, OTHER))
    assert isinstance(same, nn.Identity)
    assert not isinstance(other, nn.Identity)


def test_what_is_quantized_is_the_two_backbones():
    assert list(list_backbones(network(conv4(0)))) == ["backbone"]
    assert list(list_backbones(fused())) == ["backbone.first", "backbone.second"]
    graph = trace(fused())
    layers = {
        f"{part}.{kind}{number}" for part in ("first", "second") for kind in ("bn", "relu") for number in range(1, 5)
    }
    assert layers <= graph.backbone_nodes
    kinds = {node.name: node.op_type for node in graph.model.graph.node}
    outside = {kinds[name] for name in graph.outside}
    assert {"Concat", "Gemm", "Sqrt", "Div"} <= outside
    assert not {"Conv", "Relu"} & outside
    inside = {kinds[name] for name in graph.backbone_nodes}
    assert inside == {"Conv", "Relu", "ReduceMean"}


def test_weights_make_the_same_network_again():
    one = fused()
    one.tail = build_tail([(torch.randn(5, 264), torch.randn(5))])
    content = serialize_weights(one.backbone, one.tail)
    again = load_fusion(content, FusionSpec(SPEC.first, SPEC.second, 0.25, 5), "it")
    np.testing.assert_array_equal(embed_pixels(again, draw()), embed_pixels(one, draw()))
    other = load_fusion(content, FusionSpec(SPEC.first, SPEC.second, 0.75, 5), "it")
    assert np.abs(embed_pixels(other, draw()) - embed_pixels(one, draw())).max() > 1e-3


def change(state: "OrderedDict[str, Tensor]") -> bytes:
    import safetensors.torch

    return safetensors.torch.save(dict(state))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"third.conv1.weight": torch.zeros(1)}, "tensors of neither"),
        ({"first.conv9.weight": torch.zeros(1)}, "tensors differ from conv4"),
        ({"first.conv1.weight": torch.zeros(1)}, "tensors differ from conv4"),
        ({"second_tail.0.weight": torch.zeros(8, 7)}, "do not fit together"),
        (
            {"second_tail.0.weight": torch.zeros(9, 256), "second_tail.0.bias": torch.zeros(9)},
            "265 numbers",
        ),
        ({"second_tail.x.weight": torch.zeros(8, 256)}, "what follows its backbone"),
        ({"tail.0.weight": torch.zeros(3, 4), "tail.0.bias": torch.zeros(3)}, "do not fit together"),
    ],
)
def test_weights_that_are_not_of_it_are_refused(changes: dict[str, Tensor], reason: str):
    state = OrderedDict(fused().backbone.state_dict())
    assert load_fusion(change(state), SPEC, "it")
    with pytest.raises(RunError, match=f"^it: .*{reason}"):
        load_fusion(change(OrderedDict({**state, **changes})), SPEC, "it")


def test_untrained_networks_are_the_seeds():
    one, same, other = (embed_pixels(build_untrained(SPEC, seed), draw()) for seed in (0, 0, 1))
    assert one.shape == (4, 512)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    alike = build_untrained(replace(SPEC, second=SPEC.first), 0)  # two networks that are one would be no more than it
    first, second = np.split(embed_pixels(alike, draw()), 2, axis=1)
    assert np.abs(first - second).max() > 1e-3
