import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.initial import Normalization, initial_normalization, load_initial
from byol_edge.models.weights import serialize_weights
from byol_edge.runtime import RunError, UsageError
from torch import nn


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
    load_initial(str(tmp_path / "c.pt"), backbone, "conv4")
    assert same(backbone, source)


def test_a_run_and_its_file_of_weights_start_alike(finished_run: Path):
    first, second, third = (build_backbone("conv4", 32) for _ in range(3))
    load_initial(str(finished_run), first, "conv4")
    load_initial(str(finished_run / "encoder.safetensors"), second, "conv4")
    load_initial(str(finished_run / "last.pt"), third, "conv4")
    assert same(first, second)
    assert same(first, third)


def test_weights_of_another_network_are_named(tmp_path: Path, source: nn.Module):
    (tmp_path / "w.safetensors").write_bytes(serialize_weights(source))
    biased = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 32, 3)))
    with pytest.raises(RunError, match=r"not the weights of this biased: conv1\.bias is not there"):
        load_initial(str(tmp_path / "w.safetensors"), biased, "biased")
    with pytest.raises(RunError, match=r"conv1\.weight is \[32, 3, 3, 3\], not \[64, 3, 7, 7\].*stem"):
        load_initial(str(tmp_path / "w.safetensors"), build_backbone("resnet18", 64), "resnet18")


def test_what_is_no_checkpoint_is_named(tmp_path: Path, source: nn.Module):
    for name in ("c.pt", "c.safetensors"):
        for content in (b"junk", b""):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(RunError, match="damaged"):
                load_initial(str(tmp_path / name), source, "conv4")
    torch.save({"epoch": 3}, tmp_path / "e.pt")
    with pytest.raises(RunError, match="holds no state dict"):
        load_initial(str(tmp_path / "e.pt"), source, "conv4")


def test_timms_weights_bring_their_own_normalization():
    half = (0.5, 0.5, 0.5)
    assert initial_normalization("timm", "tf_efficientnet_lite0") == Normalization(half, half)
    assert initial_normalization(None, "tf_efficientnet_lite0").mean == (0.485, 0.456, 0.406)
    with pytest.raises(UsageError, match="timm has no pretrained weights of conv4"):
        initial_normalization("timm", "conv4")


def test_what_holds_weights_of_this_project_says_how_they_were_normalized(
    finished_run: Path, finished_bundle: Path, tmp_path: Path, source: nn.Module
):
    for init in (finished_run, finished_run / "encoder.safetensors", finished_bundle):
        assert not initial_normalization(str(init), "conv4").guessed
    torch.save(source.state_dict(), tmp_path / "c.pt")
    (tmp_path / "w.safetensors").write_bytes(serialize_weights(source))
    for name in ("c.pt", "w.safetensors"):
        assert initial_normalization(str(tmp_path / name), "conv4") == Normalization(guessed=True)


def test_a_bundle_gives_its_weights(finished_run: Path, finished_bundle: Path):
    first, second = (build_backbone("conv4", 32) for _ in range(2))
    load_initial(str(finished_run), first, "conv4")
    load_initial(str(finished_bundle), second, "conv4")
    assert same(first, second)
    with pytest.raises(UsageError, match="a bundle of conv4, not of resnet18"):
        initial_normalization(str(finished_bundle), "resnet18")


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "device", "long", "nul", "below a file"])
def test_what_is_no_file_of_weights_is_one_error(tmp_path: Path, source: nn.Module, kind: str):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    init = {
        "device": "/dev/zero",
        "long": "x" * 5000,
        "nul": str(tmp_path / "a\0b"),
        "below a file": str(tmp_path / "file" / "below"),
    }.get(kind, str(tmp_path / kind))
    for read in (lambda: initial_normalization(init, "conv4"), lambda: load_initial(init, source, "conv4")):
        with pytest.raises(RunError, match="no run, no bundle, no checkpoint, and not the word timm") as error:
            read()
        assert len(str(error.value)) < 400


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, source: nn.Module):
    for value, message in ((float("nan"), "no finite numbers"), (torch.inf, "no finite numbers")):
        state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        state["conv1.weight"][0, 0, 0, 0] = value
        torch.save(state, tmp_path / "c.pt")
        with pytest.raises(RunError, match=message):
            load_initial(str(tmp_path / "c.pt"), source, "conv4")
    torch.save({name: tensor.long() for name, tensor in source.state_dict().items()}, tmp_path / "c.pt")
    with pytest.raises(RunError, match=r"conv1\.weight is torch\.int64, not torch\.float32"):
        load_initial(str(tmp_path / "c.pt"), source, "conv4")
    torch.save(
        {name: tensor.half() if tensor.ndim else tensor for name, tensor in source.state_dict().items()},
        tmp_path / "c.pt",
    )
    load_initial(str(tmp_path / "c.pt"), source, "conv4")  # half precision is what many are kept in


def test_a_checkpoint_nested_without_end_is_one_error(tmp_path: Path, source: nn.Module):
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(RunError, match="not a checkpoint of plain tensors"):
        load_initial(str(tmp_path / "c.pt"), source, "conv4")


def test_a_download_that_fails_is_one_error(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RunError, match=r"cannot be had \(no route to host\).*network"):
        load_initial("timm", nn.Identity(), "resnet18")


def test_a_run_of_another_network_is_named_before_its_weights_are_read(finished_run: Path):
    with pytest.raises(UsageError, match="a run of conv4, not of resnet18"):
        initial_normalization(str(finished_run), "resnet18")
