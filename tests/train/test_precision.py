import copy
import dataclasses
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from byol_edge.models.autoencoder import AutoencoderConfig
from byol_edge.models.backbones import build_backbone
from byol_edge.models.byol import BYOLConfig, regression_loss
from byol_edge.models.distillation import DistillationConfig
from byol_edge.models.infonce import InfoNCEConfig
from byol_edge.models.objective import Outcome, Views
from byol_edge.runtime import RunError, UsageError
from byol_edge.runtime.run import Run
from byol_edge.train import precision as precisions
from byol_edge.train.config import TrainConfig
from byol_edge.train.failures import check_finite
from byol_edge.train.monitor import Monitor
from byol_edge.train.precision import autocast, check_precision, choose_precision, keep_in_float, measure_gain
from byol_edge.train.pretrain import pretrain
from byol_edge.train.settings import Settings, resolve
from torch import nn

CPU = torch.device("cpu")
CONFIG = TrainConfig(backbone="conv4", image_size=24, epochs=2, batch_size=16, workers=0)


def settings(images: int, **changes: object) -> Settings:
    return resolve(dataclasses.replace(CONFIG, **changes), images)


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is measured; empty: nothing may be."""
    gains: list[float] = []
    monkeypatch.setattr(precisions, "measure_gain", lambda _: gains[0])
    monkeypatch.setattr(precisions, "_cpu_has_bf16", lambda: True)
    return gains


@pytest.mark.parametrize(("measured", "expected"), [(1.7, "bf16"), (1.1, "fp32"), (0.6, "fp32")])
def test_a_cpu_takes_what_is_clearly_faster(gain: list[float], measured: float, expected: str):
    gain.append(measured)
    assert choose_precision(settings(100_000), CPU) == expected


def test_a_short_run_and_a_cpu_without_bfloat16_are_not_measured(gain: list[float], monkeypatch: pytest.MonkeyPatch):
    assert choose_precision(settings(9000), CPU) == "fp32"
    monkeypatch.setattr(precisions, "_cpu_has_bf16", lambda: False)
    assert choose_precision(settings(100_000), CPU) == "fp32"


@pytest.mark.parametrize(
    ("flags", "has"),
    [("flags: fpu avx512f avx512_bf16", True), ("Features: fp asimd bf16", True), ("flags: fpu avx512f", False)],
)
def test_bfloat16_is_found_by_the_cpus_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, has: bool):
    (tmp_path / "cpuinfo").write_text(f"processor: 0\n{flags}\n")
    monkeypatch.setattr(precisions, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(precisions, "measure_gain", lambda _: 2.0)
    assert choose_precision(settings(100_000), CPU) == ("bf16" if has else "fp32")


def test_the_gain_is_measured_without_a_trace_in_the_random_numbers_of_a_run():
    assert measure_gain(settings(1000)) > 0


def test_a_gpu_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old card")
    assert choose_precision(settings(100), torch.device("cuda")) == "fp32"
    with pytest.raises(UsageError, match="precision=bf16: an old card has no bfloat16; take fp32"):
        check_precision("bf16", torch.device("cuda"))


def note(seen: set[torch.dtype], module: nn.Module, inputs: object, output: torch.Tensor) -> None:
    seen.add(output.dtype)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "tf_efficientnet_lite0"])
def test_depthwise_convolutions_stay_in_fp32(name: str):
    network, images = build_backbone(name, 32, "standard").eval(), torch.randn(2, 3, 32, 32)
    expected = network(images)
    keep_in_float(network)
    keep_in_float(network)  # twice is once
    assert torch.equal(network(images), expected)
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(partial(note, seen[module.groups > 1]))
    with autocast("bf16", CPU):
        network(images)
    assert seen == {True: {torch.float32}, False: {torch.bfloat16}}
    assert copy.deepcopy(network).state_dict().keys() == network.state_dict().keys()


def test_losses_are_fp32_and_near_to_those_of_fp32():
    torch.manual_seed(0)
    teacher = nn.functional.normalize(torch.randn(64, 12), dim=1)
    backbone = build_backbone("conv4", 24, "standard")
    views = Views(torch.randn(16, 3, 24, 24), torch.randn(16, 3, 24, 24), teacher[:16])
    configs = BYOLConfig(0.9, 32, 16), InfoNCEConfig(0.9, 32, 16), AutoencoderConfig(), DistillationConfig(8, True)
    for config in configs:
        objective = config.build(copy.deepcopy(backbone), 256, 24, teacher)
        plain = objective(views).loss
        with autocast("bf16", CPU):
            outcome = objective(views)
        assert outcome.loss.dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in outcome.diagnostics.values())
        assert outcome.loss.item() == pytest.approx(plain.item(), rel=0.02)


def test_a_run_in_bfloat16_has_fp32_weights_and_goes_on_in_it(
    photos: Path, tmp_path: Path, gain: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    gain.append(2.0)
    monkeypatch.setattr(precisions, "LEAST_IMAGES", 1)
    with caplog.at_level(logging.INFO):
        pretrain(photos, tmp_path / "run", CONFIG)
    assert "conv4 is 2.00 times as fast in bfloat16 as in FP32 here" in caplog.messages
    assert "precision bf16" in caplog.messages
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    floats = [each for each in state["objective"].values() if each.is_floating_point()]
    assert {each.dtype for each in floats} == {torch.float32}
    gain.clear()  # is not measured again
    pretrain(None, tmp_path / "run", dataclasses.replace(CONFIG, epochs=3), resume=True)
    pretrain(photos, tmp_path / "plain", dataclasses.replace(CONFIG, precision="fp32"))
    one, other = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("run", "plain"))
    assert one != other


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision=fp16: has to be auto, fp32 or bf16"):
        settings(100, precision="fp16")


def test_a_loss_that_is_no_number_suggests_fp32_first(tmp_path: Path):
    monitor = Monitor()
    monitor.add(3, 16, Outcome(torch.tensor(float("nan")), {}))
    with pytest.raises(RunError, match=r"the loss is nan at step 4, .*Start another run with precision=fp32"):
        check_finite(monitor, settings(100, precision="bf16"), Run(tmp_path / "run"))
    with pytest.raises(RunError, match="Start another run with learning_rate"):
        check_finite(monitor, settings(100, precision="fp32"), Run(tmp_path / "run"))


def test_a_loss_in_fp64_stays_fp64():
    one, other = torch.randn(2, 4, 3, dtype=torch.float64)
    assert regression_loss(one, other).dtype == torch.float64
