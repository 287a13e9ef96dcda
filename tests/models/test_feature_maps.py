import numpy as np
import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.feature_maps import choose_maps
from byol_edge.models.fusion import Fusion
from byol_edge.models.network import InferenceNetwork, embed_pixels, giving_maps, map_pixels
from byol_edge.models.tracing import trace
from byol_edge.runtime import Preprocessing, UsageError
from byol_edge.runtime.backend import ModelBytes
from byol_edge.runtime.feature_maps import FeatureMap
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from torch import Tensor, nn


def build(name: str, side: int) -> InferenceNetwork:
    torch.manual_seed(0)
    return InferenceNetwork(build_backbone(name, side), Preprocessing(side))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("resnet18", ["layer2", "layer1.0.act1", "layer3"]),
        ("tf_efficientnet_lite0", ["blocks.2", "blocks.4"]),
        ("repvgg_a0", ["stages.1"]),
        ("conv4", ["conv2", "bn2", "relu2"]),  # of which the last works in place
    ],
)
def test_a_traced_network_gives_the_maps_that_pytorch_does(name: str, names: list[str], random: np.random.Generator):
    network = build(name, 64)
    pixels = random.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    maps = map_pixels(network, pixels, names, batch_size=2)
    assert tuple(maps[each.name].shape[1:] for each in choose_maps(network, names)) == tuple(
        each.shape for each in choose_maps(network, names)
    )
    graph = trace(network, names)
    assert [each.name for each in graph.model.graph.output] == ["embeddings", *names]
    backend = OnnxRuntimeBackend.load(ModelBytes("onnx", (graph.model.SerializeToString(),)), threads=2)
    vectors, *found = backend.run_all(pixels)
    np.testing.assert_allclose(vectors, embed_pixels(network, pixels), atol=1e-5)
    np.testing.assert_array_equal(vectors, backend.run(pixels))
    for its, each in zip(names, found, strict=True):
        np.testing.assert_allclose(each, maps[its], atol=1e-5 * float(np.abs(maps[its]).max()))


def test_a_map_is_what_its_module_gives_and_not_what_comes_of_it_in_place(random: np.random.Generator):
    network = build("conv4", 32)
    pixels = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    maps = map_pixels(network, pixels, ["bn1", "relu1"])
    assert maps["bn1"].min() < 0
    np.testing.assert_array_equal(maps["bn1"].clip(0), maps["relu1"])


def test_a_network_is_left_as_it_was():
    network = build("conv4", 32)
    with giving_maps(network, ["relu2"]):
        assert len(network(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))) == 2
    assert isinstance(network(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)), Tensor)
    assert not any(module._forward_hooks for module in network.modules())


class Odd(nn.Module):
    """What gives no map, or more than one."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.never = nn.Conv2d(3, 3, 3)
        self.pair = Pair()
        self.embeddings = nn.Conv2d(3, 4, 3)
        self.add = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        features = self.embeddings(self.pair(self.twice(self.twice(images)))[0])
        features = torch.relu(features) + self.add(features)
        return self.relu(features).mean((2, 3))


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("twice", "runs 2 times for an image"),
        ("never", "is not run for an embedding"),
        ("pair", "gives a tuple, not a map"),
        ("embeddings", "cannot be the name of an output"),
        ("backbone.add", "is no module of this backbone"),
        ("", "is no module of this backbone"),
    ],
)
def test_what_gives_no_map_is_refused_with_the_reason(name: str, reason: str):
    with pytest.raises(UsageError, match=rf"features=.*: '{name}' {reason}.*; its stages end in .* \[4, 30, 30\]"):
        choose_maps(InferenceNetwork(Odd(), Preprocessing(32)), [name])


def test_names_that_the_exporter_gives_to_values_are_no_hindrance(random: np.random.Generator):
    network = InferenceNetwork(Odd(), Preprocessing(32))
    names = [each.name for each in choose_maps(network, ["add", "relu"])]
    pixels = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    content = trace(network, names).model.SerializeToString()
    _, *found = OnnxRuntimeBackend.load(ModelBytes("onnx", (content,)), 1).run_all(pixels)
    for name, each in zip(names, found, strict=True):
        np.testing.assert_allclose(each, map_pixels(network, pixels, names)[name], atol=1e-5)


def test_wrong_names_are_answered_with_a_map_for_each_stage():
    with pytest.raises(UsageError) as caught:
        choose_maps(build("resnet18", 64), ["layer9"])
    assert str(caught.value) == (
        "features=layer9: 'layer9' is no module of this backbone; its stages end in act1 [64, 32, 32], "
        "layer1 [64, 16, 16], layer2 [128, 8, 8], layer3 [256, 4, 4], layer4 [512, 2, 2]"
    )
    with pytest.raises(UsageError, match=r"'fc' gives float32 \[N, 512\], not a map"):
        choose_maps(build("resnet18", 64), ["fc"])
    with pytest.raises(UsageError, match=r"'stages\.0\.0\.conv_kxk' is merged with what runs beside it"):
        choose_maps(build("repvgg_a0", 64), ["stages.0.0.conv_kxk"])
    with pytest.raises(UsageError, match=r"layer2\.1 gives the same map as layer2; name one of them"):
        choose_maps(build("resnet18", 64), ["layer2", "layer2.1"])
    with pytest.raises(UsageError, match="channels last"):
        choose_maps(build("swin_tiny_patch4_window7_224", 224), ["layers.0"])


def test_of_two_that_are_fused_neither_may_have_its_channels_last():
    first, second = build("conv4", 32), build("conv4", 32)
    second.backbone.output_fmt = "NHWC"  # type: ignore[assignment]
    both = InferenceNetwork(Fusion(first, second, 0.5), Preprocessing(32))
    with pytest.raises(UsageError, match="channels last"):
        choose_maps(both, ["first.relu2"])


def test_sizes_are_told():
    assert choose_maps(build("conv4", 32), ["relu3"]) == (FeatureMap("relu3", 128, 4, 4),)
    assert choose_maps(build("conv4", 32), []) == ()
