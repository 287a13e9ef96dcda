from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.models.haiku import is_haiku, name_backbone, read_haiku
from byol_edge.models.padding import use_same_padding
from byol_edge.models.tail import build_tail, read_layers
from byol_edge.runtime import RunError
from haiku_pickles import Tree, draw_resnet, write_checkpoint
from numpy.typing import NDArray
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional


def pad_same(images: Tensor, side: int, stride: int, value: float = 0.0) -> Tensor:
    """As TensorFlow and jax define it: the output has ⌈n / stride⌉ pixels, the odd pixel of padding comes last."""
    amounts = []
    for size in (images.shape[3], images.shape[2]):
        total = max((-(-size // stride) - 1) * stride + side - size, 0)
        amounts += [total // 2, total - total // 2]
    return functional.pad(images, amounts, value=value)


class HaikuResNet:
    """networks.ResNetTorso in inference, after DeepMind's source; agrees with haiku itself to 5e-7."""

    def __init__(self, params: Tree, state: Tree) -> None:
        self.params, self.state = params, state

    def conv(self, x: Tensor, path: str, stride: int) -> Tensor:
        weight = torch.from_numpy(self.params[path]["w"])  # [H, W, in, out]
        return functional.conv2d(pad_same(x, len(weight), stride), weight.permute(3, 2, 0, 1), stride=stride)

    def norm(self, x: Tensor, path: str) -> Tensor:
        def as_column(values: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(values.reshape(1, -1, *(1,) * (x.ndim - 2)))

        mean, var = (as_column(self.state[f"{path}/~/{name}_ema"]["average"]) for name in ("mean", "var"))
        scale, offset = (as_column(self.params[path][name]) for name in ("scale", "offset"))
        return (x - mean) * torch.rsqrt(var + 1e-5) * scale + offset

    def embed(self, images: Tensor) -> Tensor:
        root = "res_net50/~"
        x = self.norm(self.conv(images, f"{root}/initial_conv", 2), f"{root}/initial_batchnorm").relu()
        x = functional.max_pool2d(pad_same(x, 3, 2, -torch.inf), 3, 2)
        for path in dict.fromkeys(key.rsplit("/", 1)[0] for key in self.params if "block_group" in key):
            stride = 2 if "block_0/" in path and "group_0" not in path else 1
            shortcut = x
            if f"{path}/shortcut_conv" in self.params:
                shortcut = self.norm(self.conv(x, f"{path}/shortcut_conv", stride), f"{path}/shortcut_batchnorm")
            for number, step in enumerate((1, stride, 1)):
                x = self.norm(self.conv(x, f"{path}/conv_{number}", step), f"{path}/batchnorm_{number}")
                x = x.relu() if number < 2 else x
            x = (x + shortcut).relu()
        return x.mean((2, 3))

    def project(self, embeddings: Tensor) -> Tensor:
        first = self.params["projector/linear"]
        hidden = embeddings @ torch.from_numpy(first["w"]) + torch.from_numpy(first["b"])
        return self.norm(hidden, "projector/batch_norm").relu() @ torch.from_numpy(
            self.params["projector/linear_1"]["w"]
        )


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def build(tensors: dict[str, Tensor]) -> nn.Module:
    network = ResNet(Bottleneck, (1, 1, 1, 1), num_classes=0)  # pyright: ignore[reportArgumentType]
    network.load_state_dict(tensors)
    use_same_padding(network)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize(("flat", "protocol"), [(False, 2), (True, 2), (False, 4), (True, 4)])
def test_both_networks_are_read_and_embed_as_haiku_does(flat: bool, protocol: int):
    online, target = draw_resnet(1), draw_resnet(2)
    tensors = read_haiku(write_checkpoint(online, target, flat, protocol), "pretrain.pkl")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for drawn, prefix in ((online, ""), (target, "target_")):
        reference = HaikuResNet(*drawn)
        expected = reference.embed(images)
        found = build(part(tensors, f"{prefix}backbone."))(images)
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
        projected = build_tail(read_layers(part(tensors, f"{prefix}projector.")))(expected)
        assert (projected - reference.project(expected)).abs().max() <= 2e-6 * projected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("side", [63, 64, 65])
def test_the_padding_holds_for_even_and_odd_sides(side: int):
    online = draw_resnet(1)
    tensors = read_haiku(write_checkpoint(online, online), "pretrain.pkl")
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = HaikuResNet(*online).embed(images)
    found = build(part(tensors, "backbone."))(images)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_a_resnet50_has_all_of_timms_tensors_and_no_others():
    drawn = draw_resnet(1, (3, 4, 6, 3), np.int8)
    tensors = read_haiku(write_checkpoint(drawn, ({}, {})), "pretrain.pkl")
    with torch.device("meta"):
        expected = timm.create_model("resnet50", num_classes=0).state_dict()
    found = part(tensors, "backbone.")
    assert {key: tensor.shape for key, tensor in found.items()} == {key: each.shape for key, each in expected.items()}
    assert name_backbone(tensors, "pretrain.pkl") == "resnet50"


def test_a_module_that_is_not_known_is_kept_by_its_name():
    params, state = draw_resnet(1)
    params["res_net50/~/final_batchnorm"] = {"scale": np.ones((1, 1, 1, 8), np.float32)}
    tensors = read_haiku(write_checkpoint((params, state), ({}, {})), "pretrain.pkl")
    assert "backbone.res_net50/~/final_batchnorm.weight" in tensors


def test_resnets_that_no_backbone_here_is_are_named():
    basic = read_haiku(write_checkpoint(draw_resnet(1, bottleneck=False), ({}, {})), "pretrain.pkl")
    with pytest.raises(RunError, match=r"pretrain\.pkl: a ResNet of basic blocks"):
        name_backbone(basic, "pretrain.pkl")
    shallow = read_haiku(write_checkpoint(draw_resnet(1), ({}, {})), "pretrain.pkl")
    with pytest.raises(RunError, match=r"pretrain\.pkl: a ResNet of 1-1-1-1 blocks, 1 times as wide; timm has none"):
        name_backbone(shallow, "pretrain.pkl")


def test_what_is_no_such_checkpoint_is_named():
    params, state = draw_resnet(1)
    del params["res_net50/~/initial_conv"]
    cases = {
        b"\x80\x02}.": "without online_params",
        b"\x80\x02K\x01.": "without online_params",
        write_checkpoint((params, state), ({}, {})): "without online_params",
        write_checkpoint(({"res_net50/~/initial_conv": {"w": 3}}, {}), ({}, {})): "without an array",  # type: ignore
    }
    for content, reason in cases.items():
        with pytest.raises(RunError, match=rf"pretrain\.pkl: a pickle {reason}"):
            read_haiku(content, "pretrain.pkl")


def test_torchs_files_are_not_taken_for_haikus(tmp_path: Path):
    assert is_haiku(write_checkpoint(({}, {}), ({}, {})))
    for new in (True, False):
        torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        assert not is_haiku((tmp_path / "a.pt").read_bytes())
    assert not is_haiku(b"")


@torch.no_grad()
def test_a_checkpoint_is_exported_by_its_path(tmp_path: Path):
    params, state = draw_resnet(1, (3, 4, 6, 3), np.float16)
    (tmp_path / "pretrain.pkl").write_bytes(write_checkpoint((params, state), ({}, {})))
    source = load_source(str(tmp_path / "pretrain.pkl"), ExportConfig(image_size=64))
    assert source.spec.backbone == "resnet50"
    whole = [
        {path: {key: each.astype(np.float32) for key, each in values.items()} for path, values in tree.items()}
        for tree in (params, state)
    ]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = HaikuResNet(*whole).embed(images)
    assert (source.network.backbone(images) - expected).abs().max() <= 2e-6 * expected.abs().max()
