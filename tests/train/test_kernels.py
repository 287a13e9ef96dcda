"""Kernels are chosen for a GPU and put back; a compiled step learns what the other does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from byol_edge.models.byol import BYOL
from byol_edge.runtime import RunError
from byol_edge.runtime.run import Run
from byol_edge.train.config import TrainConfig
from byol_edge.train.kernels import chosen_kernels
from byol_edge.train.pretrain import pretrain
from byol_edge.train.settings import resolve
from torch._dynamo.exc import TorchDynamoException
from training import CONFIG


def state() -> tuple[object, ...]:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


@pytest.mark.parametrize(
    ("deterministic", "expected"), [(False, ("high", True, False, False)), (True, ("high", False, True, True))]
)
def test_a_gpus_kernels_are_chosen_for_the_block_and_put_back(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool, expected: tuple[object, ...]
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    settings, before = resolve(TrainConfig(deterministic=deterministic), 1000), state()
    with chosen_kernels(settings, torch.device("cpu")):
        assert state() == before
    with pytest.raises(ZeroDivisionError), chosen_kernels(settings, torch.device("cuda")):
        assert state() == expected
        raise ZeroDivisionError
    assert state() == before


@pytest.mark.slow
def test_a_compiled_step_learns_the_same(photos: Path, finished_run: Path, tmp_path: Path):
    pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, compile=True))
    plain, compiled = (Run(run).read_metrics() for run in (finished_run, tmp_path / "run"))
    assert [each.loss for each in compiled[1:]] == pytest.approx([each.loss for each in plain[1:]], rel=1e-3)
    assert [each.rank for each in compiled] == pytest.approx([each.rank for each in plain], rel=1e-2)


def test_what_cannot_be_compiled_is_told(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise TorchDynamoException("no C++ compiler")

    monkeypatch.setattr(BYOL, "forward", broken)
    with pytest.raises(
        RunError, match=r"cannot compile the step here \(no C\+\+ compiler\); go on with resume=True and compile=False"
    ):
        pretrain(photos, tmp_path / "run", CONFIG)
