import json
from pathlib import Path

import numpy as np
import pytest
from byol_edge.models.weights import EncoderSpec
from byol_edge.runtime import ImageError, OutputExistsError, Preprocessing, RunError, find_images
from byol_edge.train import run as run_module
from byol_edge.train.monitor import Metrics

SPEC = EncoderSpec("conv4", "standard", 256, Preprocessing(32))


def metrics(epoch: int, loss: float = 1.0) -> Metrics:
    return Metrics(epoch, epoch * 10, loss, 0.99, 0.1, 0.8, 100.0, 1.0, 0)


def test_calibration_is_drawn_from_the_whole_set_and_prepared(photos: Path, tmp_path: Path):
    assert run_module.save_calibration(tmp_path, find_images(photos), SPEC, seed=0) == 120
    with np.load(tmp_path / "calibration.npz") as file:
        assert file["images"].shape == (120, 32, 32, 3)
        assert file["images"].dtype == np.uint8


def test_calibration_is_at_most_512_and_the_seeds(photos: Path, tmp_path: Path):
    paths = find_images(photos) * 5
    contents = []
    for seed in (0, 0, 1):
        assert run_module.save_calibration(tmp_path, paths, SPEC, seed) == 512
        contents.append((tmp_path / "calibration.npz").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_calibration_passes_over_what_it_cannot_read(photos: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [tmp_path / "broken.png", *find_images(photos)[:3]]
    assert run_module.save_calibration(tmp_path, paths, SPEC, 0) == 3
    with pytest.raises(ImageError, match="none of the 1 images can be read"):
        run_module.save_calibration(tmp_path, paths[:1], SPEC, 0)


def test_metrics_of_a_repeated_epoch_replace_those_of_the_killed_one(tmp_path: Path):
    for epoch, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 9.0)):
        run_module.append_metrics(tmp_path, metrics(epoch, loss))
    assert [(line["epoch"], line["loss"]) for line in run_module.read_metrics(tmp_path)] == [(1, 1.0), (2, 9.0)]


def test_a_new_run_replaces_an_old_one_only_when_told_to(tmp_path: Path):
    run_module.start_run(tmp_path / "r", {"settings": {}}, overwrite=False)
    (tmp_path / "r" / "last.pt").touch()
    with pytest.raises(OutputExistsError, match="--resume"):
        run_module.start_run(tmp_path / "r", {}, overwrite=False)
    run_module.start_run(tmp_path / "r", {"settings": 1}, overwrite=True)
    assert [entry.name for entry in (tmp_path / "r").iterdir()] == ["config.json"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    assert run_module.load_checkpoint(tmp_path) is None
    (tmp_path / "last.pt").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        run_module.load_checkpoint(tmp_path)


def test_a_run_holds_what_the_design_says(finished_run: Path):
    assert sorted(entry.name for entry in finished_run.iterdir()) == [
        "calibration.npz", "config.json", "curves.png", "encoder.json", "encoder.safetensors", "last.pt",
        "metrics.jsonl",
    ]  # fmt: skip
    config = json.loads((finished_run / "config.json").read_text())
    assert config["settings"]["seed"] == 0
    assert config["images"]["count"] == 120
    assert "torch" in config["versions"]
    assert [line["epoch"] for line in run_module.read_metrics(finished_run)] == [1, 2]
