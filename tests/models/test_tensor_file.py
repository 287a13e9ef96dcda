import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from byol_edge.models.backbones import conv4
from byol_edge.models.tensor_file import read_tensors
from byol_edge.models.weights import serialize_weights
from byol_edge.runtime import RunError
from torch import nn


class Settings(dict):
    """A dict of another class, as easydict's and Lightning's."""


class Keeper:
    """Whose state is anything but a dict."""

    def __reduce__(self) -> Any:
        return Keeper, (), (1, "two", [3])


class Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


class Evaluated:
    def __reduce__(self) -> Any:
        return eval, ("1 + 1",)


def write(content: object, file: Path, **options: Any) -> Path:
    torch.save(content, file, **options)
    return file


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.bin", "w"])
def test_what_a_file_is_its_content_says(tmp_path: Path, name: str):
    network = conv4()
    (tmp_path / name).write_bytes(serialize_weights(network))
    assert read_tensors(tmp_path / name).keys() == network.state_dict().keys()
    write(network.state_dict(), tmp_path / name)
    assert read_tensors(tmp_path / name).keys() == network.state_dict().keys()


def test_tensors_have_their_path_and_optimizers_are_passed_over(tmp_path: Path):
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    content = {"epoch": 3, "a": {"b": {"c.weight": torch.ones(1)}}, "optimizer": optimizer.state_dict(), "list": [1]}
    assert list(read_tensors(write(content, tmp_path / "c.pt"))) == ["a.b.c.weight"]
    with pytest.raises(RunError, match="an optimizer's state, which holds no network"):
        read_tensors(write(optimizer.state_dict(), tmp_path / "o.pt"))


@pytest.mark.parametrize("zipped", [True, False])
def test_classes_that_are_merely_mentioned_are_not_needed(tmp_path: Path, zipped: bool, monkeypatch):
    content = {
        "hyper_parameters": argparse.Namespace(lr=1.0, folder=Path("/data"), nested=argparse.Namespace()),
        "settings": Settings(a=Settings(b=1)),
        "counts": defaultdict(list, a=[1]),
        "keeper": Keeper(),
        "state_dict": OrderedDict(weight=torch.arange(3.0)),
    }
    file = write(content, tmp_path / "c.ckpt", _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(Keeper, "__setstate__", lambda *_: pytest.fail("its code was run"), raising=False)
    state = read_tensors(file)
    assert torch.equal(state["state_dict.weight"], torch.arange(3.0))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_is_named_and_not_run(tmp_path: Path, zipped: bool):
    command = f"touch {tmp_path / 'ran'}"
    for payload, name in ((Payload(command), r"(posix|nt)\.system"), (Evaluated(), r"eval")):
        content = {"state_dict": {"weight": torch.ones(1)}, "extra": payload}
        file = write(content, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(RunError, match=rf"would run .*{name} where it is unpickled; do not use this file"):
            read_tensors(file)
    assert not (tmp_path / "ran").exists()


def test_whole_modules_are_refused_with_what_to_do(tmp_path: Path):
    with pytest.raises(
        RunError, match=r"holds whole modules \(byol_edge.*weights_only=False\) and save its state_dict"
    ):
        read_tensors(write({"model": conv4()}, tmp_path / "m.pt"))
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(2)), tmp_path / "s.pt")
    with pytest.raises(RunError, match="a TorchScript archive"):
        read_tensors(tmp_path / "s.pt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x1f\x8b" + bytes(99), "unpack it"),
        (b"<!DOCTYPE html><html>", "download it again"),
        (b"junk", "damaged"),
        (b"\x80\x02.", "c.pt: "),
        (pickle.dumps({"a": 1}), "a pickle without online_params"),
        (b"\x08\0\0\0\0\0\0\0{", "not a safetensors file, or damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(RunError, match=reason) as error:
        read_tensors(tmp_path / "c.pt")
    assert "\n" not in str(error.value)


def test_a_cut_file_and_one_without_tensors_are_named(tmp_path: Path):
    whole = write(conv4().state_dict(), tmp_path / "c.pt").read_bytes()
    for cut in (10, 1000, len(whole) - 1):
        (tmp_path / "c.pt").write_bytes(whole[:cut])
        with pytest.raises(RunError, match="damaged"):
            read_tensors(tmp_path / "c.pt")
    with pytest.raises(RunError, match="holds no state dict"):
        read_tensors(write({"epoch": 3}, tmp_path / "e.pt"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.npy", b"")
    (tmp_path / "z.pt").write_bytes(archive.getvalue())
    with pytest.raises(RunError, match="damaged"):
        read_tensors(tmp_path / "z.pt")


def test_a_checkpoint_nested_without_end_is_one_error(tmp_path: Path):
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(RunError, match="holds no state dict"):
        read_tensors(write(content, tmp_path / "c.pt"))


def test_a_folder_of_shards_is_named(tmp_path: Path):
    from byol_edge.models.tensor_file import find_file

    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(RunError, match="a folder of shards"):
        find_file(tmp_path)


def test_what_no_network_could_have_is_passed_over(tmp_path: Path):
    sound = {"conv1.weight": torch.ones(2)}
    odd = {
        "repeated": torch.ones(1).expand(2**40),
        "a\nline": torch.ones(1),
        "\x1b[31m": torch.ones(1),
        "x" * 501: torch.ones(1),
    }
    assert list(read_tensors(write({**odd, **sound}, tmp_path / "c.pt"))) == ["conv1.weight"]
    with pytest.raises(RunError, match="no tensors that a network could have"):
        read_tensors(write(odd, tmp_path / "c.pt"))
    safetensors.torch.save_file({"a\nline": torch.ones(1), "b": torch.ones(1)}, tmp_path / "c.safetensors")
    assert list(read_tensors(tmp_path / "c.safetensors")) == ["b"]


def test_a_packed_archive_is_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", bytes(10_000_000))
    with pytest.raises(RunError, match=r"unpacks to 10 MB, and torch\.save packs nothing"):
        read_tensors(tmp_path / "c.pt")
