from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from byol_edge.models.backbones import build_backbone
from byol_edge.models.layouts import LAYOUTS, strip_wrappers
from byol_edge.models.matching import build_empty
from byol_edge.models.recognition import recognize
from byol_edge.models.weights import load_weights
from byol_edge.runtime import RunError, UsageError
from torch import Tensor, nn

State = dict[str, Tensor]


def resnet(seed: int = 0, **options: Any) -> nn.Module:
    """torchvision's ResNet-18, with running statistics of its own."""
    torch.manual_seed(seed)
    network = torchvision.models.resnet18(**options)
    return with_statistics(network)


def with_statistics(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def behind(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def embed(state: State, images: Tensor, **known: Any) -> Tensor:
    """What the backbone that is recognized makes of images."""
    found = recognize(state, "theirs.pt", **known)
    backbone = build_backbone(found.backbone, images.shape[-1], found.stem)
    load_weights(found.tensors, backbone, found.backbone, "theirs.pt")
    with torch.no_grad():
        return backbone.eval()(images)


def check_same(state: State, network: nn.Module, side: int = 64, **known: Any) -> None:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(embed(state, images, **known), expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.project)
@pytest.mark.parametrize("root", ["", "module.", "state_dict.model._orig_mod.", "pl_module.x."])
def test_each_layout_gives_its_online_network_its_target_and_its_projector(layout, root: str):
    online, target = resnet(0), resnet(1)
    online.fc = target.fc = nn.Identity()  # type: ignore[assignment]
    head = {"0.weight": torch.randn(8, 512), "0.bias": torch.zeros(8), "2.weight": torch.randn(4, 8)}
    state = behind(root + layout.online, online.state_dict())
    if layout.target:
        state |= behind(root + layout.target, target.state_dict())
    for part in (layout.projector, layout.target_projector):
        state |= behind(root + part, head) if part else {}
    found = recognize(state, "theirs.pt")
    assert (found.project, found.backbone, found.stem) == (layout.project, "resnet18", layout.stem)
    assert torch.equal(found.tensors["layer4.1.conv2.weight"], online.state_dict()["layer4.1.conv2.weight"])
    assert [tuple(weight.shape) for weight, _ in found.layers] == ([(8, 512), (4, 8)] if layout.projector else [])
    if layout.target:
        other = recognize(state, "theirs.pt", network="target")
        assert torch.equal(other.tensors["conv1.weight"], target.state_dict()["conv1.weight"])
    else:
        with pytest.raises(UsageError, match=r"network=target: .*holds none"):
            recognize(state, "theirs.pt", network="target")


def numbered(network: nn.Module) -> State:
    return nn.Sequential(*list(network.children())[:-1]).state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network.state_dict(),
        lambda network: behind("module.encoder.", network.state_dict()),
        lambda network: behind("a.b._orig_mod.module.", network.state_dict()),
        lambda network: behind("backbone.", numbered(network)),
        numbered,
        lambda network: {key: value for key, value in network.state_dict().items() if "batches" not in key},
        lambda network: {key: value.double() for key, value in network.state_dict().items()},
        lambda network: dict(reversed(network.state_dict().items())),
        lambda network: behind("encoder.", network.state_dict()) | behind("ema.encoder.", resnet(5).state_dict()),
        lambda network: network.state_dict() | behind("state_dict_ema.", resnet(5).state_dict()),
    ],
)
def test_a_resnet_is_found_behind_any_prefix(wrap: Callable[[nn.Module], State]):
    network = resnet()
    state = wrap(network)
    network.fc = nn.Identity()  # type: ignore[assignment]
    check_same(state, network)


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "seresnet50"])
def test_depth_and_width_of_a_resnet_are_in_its_shapes(name: str):
    assert recognize(timm.create_model(name).state_dict(), "x").backbone == name


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_100",
        "mobilenetv4_conv_small",
        "efficientnet_lite0",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "regnetx_002",
        "repvgg_a0",
        "mobileone_s0",
        "densenet121",
    ],
)
def test_timms_networks_are_known_by_their_shapes_or_asked_for(name: str):
    state = behind("backbone.", timm.create_model(name).state_dict())
    if name == "efficientnet_lite0":  # TensorFlow's pads otherwise
        with pytest.raises(UsageError, match=r"fit efficientnet_lite0 and tf_efficientnet_lite0"):
            recognize(state, "x")
        assert recognize(state, "x", backbone="tf_efficientnet_lite0").backbone == "tf_efficientnet_lite0"
    else:
        assert recognize(state, "x").backbone == name


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5"])
def test_torchvisions_networks_compute_what_they_did(name: str):
    torch.manual_seed(0)
    network = with_statistics(torchvision.models.get_model(name))
    state = network.state_dict()
    setattr(network, "fc" if name.startswith("shuffle") else "classifier", nn.Identity())
    check_same(state, network)
    assert recognize(network.state_dict(), "x").backbone == f"torchvision:{name}"


@pytest.mark.parametrize(("name", "side"), [("vit_tiny_patch16_224", 64), ("vit_tiny_patch16_224", 224)])
def test_a_transformers_side_is_in_its_positions(name: str, side: int):
    network = timm.create_model(name, img_size=side, num_classes=0).eval()
    assert recognize(network.state_dict(), "x").image_size == side
    check_same(network.state_dict(), network, side)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "mobileone_s0", "convnext_atto"])
def test_an_empty_network_has_the_shapes_of_one_with_weights(name: str):
    empty, whole = build_empty(name, None).state_dict(), build_backbone(name, 224).state_dict()
    assert {key: (each.shape, each.dtype) for key, each in empty.items()} == {
        key: (each.shape, each.dtype) for key, each in whole.items()
    }
    assert all(each.is_meta for each in empty.values())


def small(padding: int) -> nn.Module:
    network = resnet()
    network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=padding, bias=False)
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network


def test_a_small_stem_is_padded_as_its_project_does():
    plain, solo = small(1), small(2)
    check_same(behind("backbone.", plain.state_dict()), plain, 32)
    state = behind("backbone.", solo.state_dict()) | behind("momentum_backbone.", resnet(3).state_dict())
    state["projector.0.weight"] = torch.zeros(4, 512)
    check_same(state, solo, 32)
    assert "stem: 3×3, stride 1, padding 2, no max-pool" in recognize(state, "x").assumptions


def test_names_of_resnets_for_cifar():
    # As in kuangliu's pytorch-cifar, bare and as children by number.
    network = small(1)
    shortcut = {key.replace("downsample", "shortcut"): value for key, value in network.state_dict().items()}
    check_same(behind("net.", shortcut), network, 32)
    parts = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    children = {}
    for key, value in shortcut.items():
        first, _, rest = key.partition(".")
        children[f"backbone.{parts.index(first)}.{rest}"] = value
    check_same(children, network, 32)


def test_gray_and_bgr_become_rgb_and_compute_the_same():
    network = resnet()
    network.fc = nn.Identity()  # type: ignore[assignment]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images.flip(1))
    torch.testing.assert_close(embed(network.state_dict(), images, bgr=True), expected, rtol=0, atol=1e-5)

    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    gray = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    with torch.no_grad():
        expected = network(gray)
    torch.testing.assert_close(embed(network.state_dict(), images), expected, rtol=0, atol=1e-5)
    network.conv1 = nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    with pytest.raises(RunError, match="images of 4 channels"):
        recognize(network.state_dict(), "x")


def test_wrappers_are_left_out_wherever_they_stand():
    assert strip_wrappers("state_dict.module.backbone._orig_mod.conv1.weight") == "backbone.conv1.weight"
    assert strip_wrappers("modules.remodel.weight") == "modules.remodel.weight"


def change(state: State, **changes: Tensor | None) -> State:
    changed = {**state, **{key: value for key, value in changes.items() if value is not None}}
    return {key: value for key, value in changed.items() if key not in changes or changes[key] is not None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layer1.0.conv1.weight": None}, r"not the weights of resnet18.*1 missing \(layer1\.0\.conv1\.weight"),
        ({"conv1.weight": None}, r"1 missing \(conv1\.weight"),
        ({"layer2.0.bn1.running_mean": torch.zeros(7)}, r"layer2\.0\.bn1\.running_mean is \[7\], not \[128\]"),
        ({"layer1.0.bn1.weight": torch.full((64,), torch.nan)}, "no finite numbers"),
        ({"layer1.0.bn1.weight": torch.ones(64).long()}, r"is torch\.int64, not torch\.float32"),
        ({"layer1.0.bn1.weight": torch.ones(64, dtype=torch.complex64)}, r"is torch\.complex64"),
        ({"layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)}, r"1 left over \(layer1\.0\.se\.fc1\.weight"),
        (
            {"module.conv1.weight": torch.zeros(64, 3, 7, 7)},
            "two tensors for one, conv1.weight and module.conv1.weight",
        ),
        ({"conv1.weight": torch.zeros(64, 3, 5, 5)}, r"conv1\.weight is \[64, 3, 5, 5\], not \[64, 3, 7, 7\]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(changes: dict[str, Tensor | None], reason: str):
    with pytest.raises(RunError, match=reason) as error:
        recognize(change(dict(resnet().state_dict()), **changes), "theirs.pt")
    assert "\n" not in str(error.value)


def test_what_is_missing_stands_beside_the_nearest_name_that_is_left_over():
    state = {key.replace("layer4.1.bn2", "layer4.1.norm2"): value for key, value in resnet().state_dict().items()}
    with pytest.raises(
        RunError, match=r"4 missing \(layer4\.1\.bn2\.weight \(there is layer4\.1\.norm2\.weight\).*left over"
    ):
        recognize(state, "theirs.pt")
    with pytest.raises(RunError, match=r"not the weights of resnet50, the nearest: .* missing .*of another shape"):
        recognize(state, "theirs.pt", backbone="resnet50")


def test_what_is_no_network_or_several_is_said():
    fc = {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    with pytest.raises(UsageError, match=r"no network that is known .*fc\.weight \[10, 512\].*Give backbone=NAME"):
        recognize(fc, "x")
    with pytest.raises(RunError, match="no weights of resnet18"):
        recognize(fc, "x", backbone="resnet18")
    both = behind("left.", resnet(0).state_dict()) | behind("right.", resnet(1).state_dict())
    with pytest.raises(RunError, match=r"holds several networks \(left\. and right\.\)"):
        recognize(both, "x")
    twice = behind("left.", resnet(0).state_dict()) | behind("right.", resnet(0).state_dict())
    assert recognize(twice, "x").backbone == "resnet18"
    with pytest.raises(RunError, match=r"a copy \(teacher\.net\.\), and not the network that learned"):
        recognize(behind("teacher.net.", resnet().state_dict()), "x")
    with pytest.raises(UsageError, match="network=target: x holds none"):
        recognize(resnet().state_dict(), "x", network="target")


def test_a_name_that_holds_the_word_of_a_copy_is_no_copy():
    for prefix in ("semantic_encoder.", "retargeted.", "emalite."):
        assert recognize(behind(prefix, resnet().state_dict()), "x").place == prefix
