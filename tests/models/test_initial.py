from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.initial import load_weights
from byol_edge.models.starts import find_start
from byol_edge.models.weights import serialize_weights
from byol_edge.runtime import RunError
from torch import nn


def load(path: Path, backbone: nn.Module, name: str) -> None:
    load_weights(find_start(str(path)).read(), backbone, str(path), name)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)


@pytest.fixture
def source() -> nn.Module:
    torch.manual_seed(1)
    return build_backbone("conv4", 32)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.backbone.{key}": value for key, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": {f"backbone.{key}": value for key, value in state.items()}},
        lambda state: {
            "objective": {
                **{f"target_backbone.{key}": torch.zeros_like(value) for key, value in state.items()},
                **{f"backbone.{key}": value for key, value in state.items()},
                "projector.0.weight": torch.zeros(3),
            }
        },
    ],
)
def test_the_backbone_is_found_in_a_checkpoint_whatever_its_prefix(tmp_path: Path, source: nn.Module, wrap):
    torch.save(wrap(source.state_dict()), tmp_path / "c.pt")
    backbone = build_backbone("conv4", 32)
    assert not same(backbone, source)
    load(tmp_path / "c.pt", backbone, "conv4")
    assert same(backbone, source)


def test_a_run_and_its_file_of_weights_start_alike(finished_run: Path):
    first, second, third = (build_backbone("conv4", 32) for _ in range(3))
    load(finished_run, first, "conv4")
    load(finished_run / "encoder.safetensors", second, "conv4")
    load(finished_run / "last.pt", third, "conv4")
    assert same(first, second)
    assert same(first, third)


def test_weights_of_another_network_are_named(tmp_path: Path, source: nn.Module):
    (tmp_path / "w.safetensors").write_bytes(serialize_weights(source))
    biased = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 32, 3)))
    with pytest.raises(RunError, match=r"not the weights of this biased: conv1\.bias is not there"):
        load(tmp_path / "w.safetensors", biased, "biased")
    with pytest.raises(RunError, match=r"conv1\.weight is \[32, 3, 3, 3\], not \[64, 3, 7, 7\].*stem"):
        load(tmp_path / "w.safetensors", build_backbone("resnet18", 64), "resnet18")


def test_what_is_no_checkpoint_is_named(tmp_path: Path, source: nn.Module):
    for name in ("c.pt", "c.safetensors"):
        for content in (b"junk", b""):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(RunError, match="damaged"):
                load(tmp_path / name, source, "conv4")
    torch.save({"epoch": 3}, tmp_path / "e.pt")
    with pytest.raises(RunError, match="holds no state dict"):
        load(tmp_path / "e.pt", source, "conv4")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, source: nn.Module):
    for value, message in ((float("nan"), "no finite numbers"), (torch.inf, "no finite numbers")):
        state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        state["conv1.weight"][0, 0, 0, 0] = value
        torch.save(state, tmp_path / "c.pt")
        with pytest.raises(RunError, match=message):
            load(tmp_path / "c.pt", source, "conv4")
    torch.save({name: tensor.long() for name, tensor in source.state_dict().items()}, tmp_path / "c.pt")
    with pytest.raises(RunError, match=r"conv1\.weight is torch\.int64, not torch\.float32"):
        load(tmp_path / "c.pt", source, "conv4")
    torch.save(
        {name: tensor.half() if tensor.ndim else tensor for name, tensor in source.state_dict().items()},
        tmp_path / "c.pt",
    )
    load(tmp_path / "c.pt", source, "conv4")  # half precision is what many are kept in


def test_a_checkpoint_nested_without_end_is_one_error(tmp_path: Path, source: nn.Module):
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(RunError, match="not a checkpoint of plain tensors"):
        load(tmp_path / "c.pt", source, "conv4")
