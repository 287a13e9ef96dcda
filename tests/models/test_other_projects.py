"""Checkpoints of other projects, read as the command reads them: which backbone comes out, and that it is the one."""

from __future__ import annotations

import copy
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import Source, load_source
from byol_edge.models.network import embed_pixels
from byol_edge.runtime import Encoder
from other_projects import (
    LAYOUTS,
    Layout,
    behind,
    halves,
    lightly_example,
    lightning,
    linear,
    mmselfsup,
    named,
    resnet18,
    train_norms,
)
from shapes import SHAPES
from torch import Tensor, nn

SIDE = 64


@pytest.fixture
def config(photos: Path) -> ExportConfig:
    return ExportConfig(image_size=SIDE, calibration=photos / SHAPES[0])


def backbones(stem: str = "standard") -> tuple[nn.Module, nn.Module]:
    """The one that learned and its average, which has other weights and other statistics."""
    return resnet18(1, stem), resnet18(2, stem)


@torch.no_grad()
def check(source: Source, original: nn.Module) -> None:
    """The network that was read embeds as the original does, to 1e-6 of the largest number."""
    pixels = torch.from_numpy(np.ascontiguousarray(source.calibrate[:4]))
    expected = original(source.network.inputs(pixels)).flatten(1)
    found = source.network.unscaled(pixels)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def save(layout: Layout, folder: Path) -> tuple[Path, nn.Module, nn.Module]:
    online, target = backbones(layout.stem)
    path = folder / layout.file
    torch.save(layout.make(online, target), path)
    return path, online, target


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_online_backbone_is_found(name: str, tmp_path: Path, config: ExportConfig):
    path, online, _ = save(LAYOUTS[name], tmp_path)
    source = load_source(str(path), config)
    assert source.spec.backbone == "resnet18"
    check(source, online)


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.has_target])
def test_the_target_is_found_where_it_is_asked_for(name: str, tmp_path: Path, config: ExportConfig):
    path, _, target = save(LAYOUTS[name], tmp_path)
    asked = ExportConfig(image_size=SIDE, calibration=config.calibration, network="target")
    check(load_source(str(path), asked), target)


@pytest.mark.parametrize("file", ["a.pt", "a.pth", "a.ckpt", "a.bin", "a.tar", "a.pth.tar", "a"])
def test_the_ending_of_the_file_says_nothing(file: str, tmp_path: Path, config: ExportConfig):
    online, target = backbones()
    torch.save(lightly_example(online, target), tmp_path / file)
    check(load_source(str(tmp_path / file), config), online)


def test_a_state_dict_as_safetensors(tmp_path: Path, config: ExportConfig):
    online, target = backbones()
    state = named(online, "model.backbone.") | named(target, "model.momentum_backbone.") | linear("model.head.")
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    check(load_source(str(tmp_path / "a.safetensors"), config), online)


def test_the_format_of_before_torch_1_6(tmp_path: Path, config: ExportConfig):
    online, target = backbones()
    torch.save(lightly_example(online, target), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    check(load_source(str(tmp_path / "a.pth"), config), online)


def test_half_precision_is_read_as_what_it_is(tmp_path: Path, config: ExportConfig):
    online, target = backbones()
    torch.save(halves(online, target), tmp_path / "a.pth")
    rounded = copy.deepcopy(online)
    rounded.load_state_dict(
        {key: each.half() if each.is_floating_point() else each for key, each in online.state_dict().items()}
    )
    check(load_source(str(tmp_path / "a.pth"), config), rounded)


def test_wrappers_in_any_order_and_nesting(tmp_path: Path, config: ExportConfig):
    online, target = backbones()
    for prefix in ("module.model.learner.", "learner._orig_mod.", "_orig_mod.module.model.net."):
        state = behind(prefix, named(online, "backbone.") | named(target, "backbone_momentum."))
        torch.save({"checkpoint": {"net": {"weights": state}}, "epoch": 3}, tmp_path / "a.pth")
        check(load_source(str(tmp_path / "a.pth"), config), online)


class Mentioned:
    """A class that a checkpoint mentions, of a package that is not installed here: mmengine's HistoryBuffer."""

    def __init__(self) -> None:
        self._log_history = np.arange(3.0)
        self._statistics_methods = {"mean": Mentioned.mean}

    def mean(self) -> float:
        return 0.0


def test_the_message_hub_of_mmengine_is_passed_over(
    tmp_path: Path, config: ExportConfig, monkeypatch: pytest.MonkeyPatch
):
    module = types.ModuleType("mmengine_that_is_not_here")
    monkeypatch.setattr(Mentioned, "__module__", module.__name__)
    monkeypatch.setattr(Mentioned.mean, "__module__", module.__name__)
    module.Mentioned = Mentioned  # pyright: ignore[reportAttributeAccessIssue]
    online, target = backbones()
    hub = {"log_scalars": {"train/loss": Mentioned()}, "runtime_info": {"epoch": 1, "last": np.float64(0.5)}}
    with monkeypatch.context() as during:
        during.setitem(sys.modules, module.__name__, module)
        torch.save({**mmselfsup(online, target), "message_hub": hub}, tmp_path / "epoch_1.pth")
    assert "builtins.getattr" in torch.serialization.get_unsafe_globals_in_checkpoint(str(tmp_path / "epoch_1.pth"))
    check(load_source(str(tmp_path / "epoch_1.pth"), config), online)


def test_through_onnx(tmp_path: Path, config: ExportConfig):
    path, online, _ = save(LAYOUTS["lightly example"], tmp_path)
    source = load_source(str(path), config)
    pixels = source.judge[:4]
    out = tmp_path / "bundle"
    export_bundle(str(path), out, ExportConfig(formats=("onnx",), image_size=SIDE, calibration=config.calibration))
    with Encoder(out, "fp32.onnx") as encoder:
        found = encoder.run(pixels)
    with torch.no_grad():
        original = online(source.network.inputs(torch.from_numpy(np.ascontiguousarray(pixels)))).flatten(1)
    expected = nn.functional.normalize(original).numpy()
    assert (found * expected).sum(1).min() >= 0.99999
    assert np.abs(embed_pixels(source.network, pixels) - expected).max() < 1e-6


# Made by the projects' own code, where it is installed: pip install 'byol-edge[projects]'.


def trained(network: nn.Module, seed: int) -> nn.Module:
    """As after a training of its own: what tells a copy from the network that learned."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter) * parameter.std().nan_to_num(0.1)
        train_norms(network)
    return network.eval()


def save_by_trainer(module: Any, path: Path) -> None:
    lightning_module = pytest.importorskip("pytorch_lightning")
    trainer = lightning_module.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(module)
    trainer.strategy.optimizers = [torch.optim.SGD(module.parameters(), lr=0.1)]
    trainer.save_checkpoint(path)


def without_classifier(resnet: nn.Module) -> nn.Module:
    backbone = copy.deepcopy(resnet)
    backbone.fc = nn.Identity()
    return backbone.eval()


@pytest.mark.parametrize("example", [True, False], ids=["example", "benchmark"])
def test_lightly(tmp_path: Path, config: ExportConfig, example: bool):
    heads = pytest.importorskip("lightly.models.modules")
    benchmarking = pytest.importorskip("lightly.utils.benchmarking")
    lightning_module = pytest.importorskip("pytorch_lightning")
    torchvision = pytest.importorskip("torchvision")

    resnet = torchvision.models.resnet18()
    module = lightning_module.LightningModule()
    module.projection_head = heads.BYOLProjectionHead(512, 32, 16)
    module.prediction_head = heads.BYOLPredictionHead(16, 32, 16)
    if example:  # examples/pytorch_lightning/byol.py
        module.backbone = trained(nn.Sequential(*list(resnet.children())[:-1]), 1)
        module.backbone_momentum = trained(copy.deepcopy(module.backbone), 2)
        module.projection_head_momentum = copy.deepcopy(module.projection_head)
        target = module.backbone_momentum
    else:  # benchmarks/imagenet/resnet50/byol.py
        module.backbone = trained(without_classifier(resnet), 1)
        module.teacher_backbone = trained(copy.deepcopy(module.backbone), 2)
        module.teacher_projection_head = copy.deepcopy(module.projection_head)
        module.online_classifier = benchmarking.OnlineLinearClassifier(feature_dim=512, num_classes=10)
        target = module.teacher_backbone
    save_by_trainer(module, tmp_path / "a.ckpt")
    check(load_source(str(tmp_path / "a.ckpt"), config), module.backbone)
    asked = ExportConfig(image_size=SIDE, calibration=config.calibration, network="target")
    check(load_source(str(tmp_path / "a.ckpt"), asked), target)


@pytest.mark.parametrize("simplicial", [True, False])
def test_byol_pytorch(tmp_path: Path, config: ExportConfig, simplicial: bool):
    package = pytest.importorskip("byol_pytorch")
    lightning_module = pytest.importorskip("pytorch_lightning")
    torchvision = pytest.importorskip("torchvision")

    net = torchvision.models.resnet18()
    learner = package.BYOL(
        net,
        image_size=SIDE,
        hidden_layer="avgpool",
        projection_size=16,
        projection_hidden_size=32,
        use_simplicial_embeddings=simplicial,
    )
    learner.update_moving_average()
    trained(net, 1)
    trained(learner.target_encoder.net, 2)
    backbone = without_classifier(net)

    torch.save(net.state_dict(), tmp_path / "improved-net.pt")  # as its README does
    check(load_source(str(tmp_path / "improved-net.pt"), config), backbone)
    torch.save(learner.state_dict(), tmp_path / "learner.pt")
    check(load_source(str(tmp_path / "learner.pt"), config), backbone)
    module = lightning_module.LightningModule()  # as in examples/lightning/train.py
    module.learner = learner
    save_by_trainer(module, tmp_path / "a.ckpt")
    check(load_source(str(tmp_path / "a.ckpt"), config), backbone)


@pytest.mark.parametrize("low_resolution", [False, True])
def test_stable_pretraining(tmp_path: Path, config: ExportConfig, low_resolution: bool):
    byol = pytest.importorskip("stable_pretraining.methods.byol", exc_type=ImportError)
    module = byol.BYOL("resnet18", projector_dims=(32, 16), predictor_dims=(32, 16), low_resolution=low_resolution)
    trained(module.backbone.student, 1)
    trained(module.backbone.teacher, 2)
    save_by_trainer(module, tmp_path / "a.ckpt")
    check(load_source(str(tmp_path / "a.ckpt"), config), module.backbone.student)


def test_settings_by_omegaconf(tmp_path: Path, config: ExportConfig):
    omegaconf = pytest.importorskip("omegaconf")
    online, target = backbones()
    settings = omegaconf.OmegaConf.create({"method": "byol", "optimizer": {"lr": 1.0}, "crops": [2, 0]})
    state: dict[str, Tensor] = named(online, "backbone.") | named(target, "momentum_backbone.")
    torch.save(lightning(state, hparams_type=type(settings), hyper_parameters=settings), tmp_path / "a.ckpt")
    check(load_source(str(tmp_path / "a.ckpt"), config), online)
