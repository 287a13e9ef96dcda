import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.starts import find_start
from byol_edge.runtime import UsageError
from byol_edge.train.beginning import Beginning, begin
from byol_edge.train.config import TrainConfig
from byol_edge.train.settings import resolve

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def test_without_weights_a_run_begins_with_resnet18_and_imagenets_normalization():
    assert begin(TrainConfig()) == Beginning("resnet18", 128, "standard", None, None, *IMAGENET)


def test_network_and_normalization_come_from_the_weights():
    found = begin(TrainConfig(init="timm:tf_efficientnet_lite0", image_size=32))
    name = "timm:tf_efficientnet_lite0.in1k"
    assert found == Beginning("tf_efficientnet_lite0", 32, "standard", name, name, HALF, HALF)
    assert begin(TrainConfig(init="timm:resnet18", image_size=32)).stem == "standard"  # as they were trained
    assert begin(TrainConfig(init="timm:resnet18", mean=HALF)).mean == HALF


def test_a_backbone_that_contradicts_the_weights_is_refused(finished_run: Path):
    with pytest.raises(UsageError, match=r"backbone=resnet18: .* is a run of conv4"):
        begin(TrainConfig("resnet18", init=str(finished_run)))
    assert begin(TrainConfig("conv4", init=str(finished_run))).backbone == "conv4"


def test_a_run_goes_on_at_the_size_of_the_one_before(finished_run: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        assert begin(TrainConfig(init=str(finished_run))).image_size == 32
    assert f"{finished_run} takes images of 32 px, and so does this run" in caplog.text
    assert begin(TrainConfig(init=str(finished_run), image_size=48)).image_size == 48
    assert begin(TrainConfig(init="timm:resnet18")).image_size == 128  # not 224, which few images are worth
    settings = resolve(TrainConfig(init=str(finished_run), objective=BYOLConfig()), 1000)
    assert (settings.image_size, settings.recipe) == (32, "small")


def test_a_collapsed_run_is_said_to_be_one(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    config = TrainConfig(init=str(finished_run))
    begin(config)
    assert "collapsed" not in caplog.text
    collapsed = replace(find_start(str(finished_run)), verdict="collapsed: rank 1 of 256")
    monkeypatch.setattr("byol_edge.train.beginning.find_start", lambda *_: collapsed)
    begin(config)
    assert f"{finished_run} is collapsed: rank 1 of 256" in caplog.text


def test_a_guess_is_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    torch.save(build_backbone("conv4", 32).state_dict(), tmp_path / "c.pt")
    config = TrainConfig("conv4", init=str(tmp_path / "c.pt"))
    with caplog.at_level(logging.WARNING):
        assert begin(config).mean == IMAGENET[0]
    assert "assumed: mean and std of its images: ImageNet's" in caplog.text


def test_where_all_is_chosen_the_weights_are_not_looked_for(tmp_path: Path):
    """As for a run that goes on after they went."""
    gone = TrainConfig("conv4", 64, init=str(tmp_path / "gone.pt"), mean=HALF, std=HALF)
    assert begin(gone).init == gone.init
