"""`torchrun -m byol_edge train`: several processes, one run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from byol_edge.runtime.run import Run
from commands import call

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "byol_edge", "train"]
CONFIG = ("--backbone", "conv4", "--image-size", 32, "--epochs", 2, "--batch-size", 16, "--workers", 2)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def weights(run: Path) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in safetensors.torch.load_file(run / "encoder.safetensors").items()}


@pytest.fixture
def images(photos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "images"))


def test_two_processes_make_the_run_of_one(images: Path, tmp_path: Path):
    process = start(images, "--out", tmp_path / "two", *CONFIG)
    alone = call("train", images, "--out", tmp_path / "one", *CONFIG)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, alone.exit_code) == (0, 0), errors
    assert output.count("Next: byol-edge export") == 1
    assert errors.count("epoch 2: loss") == 1
    one, two = (Run(tmp_path / name).read_metrics() for name in ("one", "two"))
    assert [each.loss for each in one[1:]] == pytest.approx([each.loss for each in two[1:]], rel=1e-4)
    assert [each.rank for each in one] == pytest.approx([each.rank for each in two], rel=1e-3)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-2, atol=1e-3, err_msg=name)


def test_two_processes_adapt_the_start_of_the_first(images: Path, finished_run: Path, tmp_path: Path):
    """The others begin with random weights, which must not reach what is measured before training."""
    start_of = ("--init", finished_run, "--image-size", 32, "--epochs", 1, "--batch-size", 16, "--workers", 2)
    process = start(images, "--out", tmp_path / "two", *start_of)
    alone = call("train", images, "--out", tmp_path / "one", *start_of)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, alone.exit_code) == (0, 0), errors
    one, two = (Run(tmp_path / name).read_metrics() for name in ("one", "two"))
    assert [each.rank for each in two] == pytest.approx([each.rank for each in one], rel=1e-3)
    assert [each.knn for each in two] == pytest.approx([each.knn for each in one])
    assert two[1].moved == pytest.approx(one[1].moved, rel=1e-2)


def test_unreadable_images_are_named_once_and_stood_in_for(images: Path, tmp_path: Path):
    for bad in sorted(images.rglob("0*.png"))[::3]:
        bad.write_text("no image")
    process = start(images, "--out", tmp_path / "run", *CONFIG)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    named = [line for line in errors.splitlines() if line.startswith(f"left out: {images}")]
    assert 0 < len(named) == len(set(named)) == Run(tmp_path / "run").read_metrics()[-1].unreadable


def test_a_batch_that_cannot_be_shared_is_refused(images: Path, tmp_path: Path):
    process = start(images, "--out", tmp_path / "run", *CONFIG, "--batch-size", 15)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "byol-edge: --batch-size 15: 2 processes cannot share 15 images evenly, two or more each; take 14" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_killed_ends_all_and_the_run_goes_on_to_the_same_weights(images: Path, tmp_path: Path):
    config = (*CONFIG, "--epochs", 20)
    whole = start(images, "--out", tmp_path / "whole", *config)
    assert whole.wait(300) == 0
    killed = start(images, "--out", tmp_path / "killed", *config)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        assert killed.poll() is None
        time.sleep(0.05)
    os.kill(find_second(killed.pid), signal.SIGKILL)
    assert killed.wait(120) != 0
    assert len(metrics.read_text().splitlines()) < 21
    resumed = start("--out", tmp_path / "killed", "--resume")
    _, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    assert (tmp_path / "killed" / "encoder.safetensors").read_bytes() == (
        tmp_path / "whole" / "encoder.safetensors"
    ).read_bytes()


def find_second(parent: int) -> int:
    """The process of rank 1 that a torchrun has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = [child for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()]
    return int(found)
