"""Commands killed at random moments (SIGKILL), and run again."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from byol_edge.runtime import Encoder

COMMAND = [sys.executable, "-m", "byol_edge"]
KILLS = 20
EPOCHS = 100


def run_for(seconds: float, *arguments: object) -> int:
    """Starts a command and kills it after a while; its exit code, -9 if it was killed."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, error = process.communicate(timeout=seconds)
        assert process.returncode == 0, error
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return process.returncode


def kill_often(longest: float, *arguments: object) -> Iterator[None]:
    """Starts a command until it was killed KILLS times and then ended by itself; yields whenever it ended by itself.

    A machine may be so fast that it is done after fewer kills: the caller checks what it left, and takes it away.
    """
    delays = random.Random(0)
    killed = 0
    while killed < KILLS:
        if run_for(delays.uniform(0.3, longest), *arguments) == 0:
            yield
        else:
            killed += 1
    assert run_for(600, *arguments) == 0
    yield


@pytest.mark.slow
def test_a_training_killed_twenty_times_ends_in_the_same_weights(photos: Path, tmp_path: Path):
    config = ("--backbone", "conv4", "--image-size", 32, "--epochs", EPOCHS, "--batch-size", 16, "--workers", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_for(600, "train", photos, "--out", whole, *config) == 0
    for _ in kill_often(9, "train", photos, "--out", killed, *config, "--resume"):
        for name in ("encoder.safetensors", "calibration.npz", "config.json", "views.png"):
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
        assert len((killed / "metrics.jsonl").read_text().splitlines()) == EPOCHS + 1  # and the untrained network
        assert [entry.name for entry in killed.iterdir() if entry.name.startswith(".")] == []
        shutil.rmtree(killed)


@pytest.mark.slow
def test_an_embedding_killed_twenty_times_ends_in_the_same_file(finished_bundle: Path, photos: Path, tmp_path: Path):
    for copy in range(200):
        folder = tmp_path / "images" / f"{copy:03}"
        folder.mkdir(parents=True)
        for path in photos.rglob("*.png"):
            os.link(path, folder / f"{path.parent.name}-{path.name}")
    command = ("embed", finished_bundle, tmp_path / "images", "--resume", "-o")
    assert run_for(600, *command, tmp_path / "whole.npz") == 0
    for _ in kill_often(2.5, *command, tmp_path / "killed.npz"):
        assert (tmp_path / "killed.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["images", "killed.npz", "whole.npz"]
        (tmp_path / "killed.npz").unlink()


@pytest.mark.slow
def test_an_export_killed_at_any_moment_leaves_no_bundle_or_a_whole_one(finished_run: Path, tmp_path: Path):
    out = tmp_path / "bundle"
    started = time.monotonic()
    assert run_for(600, "export", finished_run, "--int8", "--out", tmp_path / "timed") == 0
    lasted = time.monotonic() - started
    for part in range(1, 8):
        run_for(lasted * part / 8, "export", finished_run, "--int8", "--out", out, "--overwrite")
        if out.exists():
            assert Encoder(out).self_test().passed
    assert run_for(600, "export", finished_run, "--int8", "--out", out, "--overwrite") == 0
    assert Encoder(out).self_test().passed
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle", "timed"]
