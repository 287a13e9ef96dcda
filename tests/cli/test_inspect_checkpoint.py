import json
import shlex
from pathlib import Path

import pytest
import torch
import torchvision
from byol_edge.models.backbones import conv4
from commands import call, fails


@pytest.fixture
def lightly(tmp_path: Path) -> Path:
    """A checkpoint with the names of lightly's example."""
    network = torchvision.models.resnet18(num_classes=2)
    children = torch.nn.Sequential(*list(network.children())[:-1]).state_dict()
    state = {f"{part}.{key}": value for part in ("backbone", "backbone_momentum") for key, value in children.items()}
    state["projection_head.layers.0.weight"] = torch.zeros(8, 512)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last one.ckpt")
    return tmp_path / "last one.ckpt"


def test_a_checkpoint_is_told_with_the_command_that_exports_it(lightly: Path):
    told = call("inspect", lightly).stdout
    for part in ("lightly's examples", "resnet18, standard stem, 11.2 M", "backbone_momentum 120", "512 → 8"):
        assert part in told
    command = told.strip().splitlines()[-1].strip()
    words = shlex.split(command)
    assert words[:3] == ["byol-edge", "export", str(lightly)]
    assert words[3:5] == ["--image-size", "PIXELS"]
    described = json.loads(call("inspect", lightly, "--json").stdout)
    assert (described["backbone"], described["stem"], described["export"]) == ("resnet18", "standard", command)


def test_the_command_that_it_tells_works(tmp_path: Path, photos: Path):
    torch.save(conv4().state_dict(), tmp_path / "theirs.pt")
    command = call("inspect", tmp_path / "theirs.pt").stdout.strip().splitlines()[-1].strip()
    values = {"PIXELS": "32", "PHOTOS": str(photos), "bundles/theirs": str(tmp_path / "b"), "--int8": "--no-images"}
    words = [values.get(word, word) for word in shlex.split(command)[1:]]
    assert call(*words, "--format", "onnx").exit_code == 0
    told = call("inspect", tmp_path / "b").stdout
    assert "network: conv4, by its tensors' names and shapes; mean and std of its images: ImageNet's" in told


def test_what_is_not_recognized_is_told_with_its_parts(tmp_path: Path):
    torch.save({"generator.0.weight": torch.zeros(4, 4), "generator.0.bias": torch.zeros(4)}, tmp_path / "gan.pt")
    result = call("inspect", tmp_path / "gan.pt")
    assert result.exit_code == 2
    assert "2 tensors: generator 2" in result.stdout
    assert "no network that is known by its tensors" in result.stderr
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert "not a checkpoint of plain tensors" in fails(1, "inspect", tmp_path / "photo.jpg")


def test_training_goes_on_from_a_checkpoint_that_is_recognized(lightly: Path, photos: Path, tmp_path: Path):
    command = ("train", photos, "--init", lightly, "--out", tmp_path / "run", "--image-size", 32, "--epochs", 1)
    done = call(*command, "--batch-size", 16, "--workers", 0)
    assert done.exit_code == 0, done.output
    assert "assumed: network: resnet18" in done.stderr
    told = call("inspect", tmp_path / "run", "--json").stdout
    encoder = json.loads(told)["encoder"]
    assert (encoder["backbone"], encoder["stem"]) == ("resnet18", "standard")
    assert encoder["provenance"]["source"] == "a checkpoint of lightly's examples"
