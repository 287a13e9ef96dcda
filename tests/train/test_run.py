import json
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ImageError, OutputExistsError, Preprocessing, RunError, find_images
from byol_edge.runtime.run import EncoderSpec
from byol_edge.train import run as run_module
from byol_edge.train.monitor import Metrics

SPEC = EncoderSpec("conv4", "standard", 256, Preprocessing(32))


def metrics(epoch: int, loss: float = 1.0) -> Metrics:
    return Metrics(epoch, epoch * 10, loss, 0.99, 0.1, 0.8, 50.0, 0.5, None, 100.0, 0.1, 1.0, 0)


def test_calibration_is_drawn_from_the_whole_set_and_prepared(photos: Path, tmp_path: Path):
    images = run_module.draw_calibration(find_images(photos), SPEC, seed=0)
    assert (images.shape, images.dtype) == ((120, 32, 32, 3), np.uint8)
    run_module.save_calibration(tmp_path, images)
    with np.load(tmp_path / "calibration.npz") as file:
        assert np.array_equal(file["images"], images)


def test_calibration_is_at_most_512_and_the_seeds(photos: Path):
    paths = find_images(photos) * 5
    first, again, other = (run_module.draw_calibration(paths, SPEC, seed) for seed in (0, 0, 1))
    assert len(first) == 512
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_calibration_passes_over_what_it_cannot_read(photos: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [tmp_path / "broken.png", *find_images(photos)[:3]]
    assert len(run_module.draw_calibration(paths, SPEC, 0)) == 3
    with pytest.raises(ImageError, match="none of the 1 images can be read"):
        run_module.draw_calibration(paths[:1], SPEC, 0)


def test_damaged_metrics_are_named(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1')
    with pytest.raises(RunError, match=r"metrics\.jsonl: damaged"):
        run_module.read_metrics(tmp_path)


def test_metrics_of_a_repeated_epoch_replace_those_of_the_killed_one(tmp_path: Path):
    for epoch, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 9.0)):
        run_module.append_metrics(tmp_path, metrics(epoch, loss))
    assert [(line.epoch, line.loss) for line in run_module.read_metrics(tmp_path)] == [(1, 1.0), (2, 9.0)]


def test_a_new_run_replaces_an_old_one_only_when_told_to(tmp_path: Path):
    run_module.start_run(tmp_path / "r", {"settings": {}})
    (tmp_path / "r" / "last.pt").touch()
    with pytest.raises(OutputExistsError, match="--resume"):
        run_module.check_free(tmp_path / "r", overwrite=False)
    run_module.check_free(tmp_path / "r", overwrite=True)
    run_module.start_run(tmp_path / "r", {"settings": 1})
    assert [entry.name for entry in (tmp_path / "r").iterdir()] == ["config.json"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    assert run_module.load_checkpoint(tmp_path) is None
    (tmp_path / "last.pt").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        run_module.load_checkpoint(tmp_path)


def test_a_run_holds_what_the_design_says(finished_run: Path):
    assert sorted(entry.name for entry in finished_run.iterdir()) == [
        "calibration.npz", "config.json", "curves.png", "encoder.json", "encoder.safetensors", "last.pt",
        "metrics.jsonl", "tensorboard", "views.png",
    ]  # fmt: skip
    config = json.loads((finished_run / "config.json").read_text())
    assert config["settings"]["seed"] == 0
    assert (config["images"]["count"], config["images"]["queries"]) == (108, 12)
    assert "torch" in config["versions"]
    history = run_module.read_metrics(finished_run)
    assert [each.epoch for each in history] == [0, 1, 2]
    assert history[0].knn is not None
    assert history[0].loss is None
