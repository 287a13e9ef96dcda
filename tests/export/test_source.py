from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.export.config import ExportConfig, load_source
from byol_edge.runtime import RunError


def test_calibration_images_are_split_three_to_one(finished_run: Path):
    source = load_source(finished_run, ExportConfig())
    assert (len(source.calibrate), len(source.judge)) == (81, 27)
    assert not source.network.training


def test_of_many_three_hundred_calibrate(run: Path, random: np.random.Generator):
    np.savez(run / "calibration.npz", images=random.integers(0, 256, (512, 32, 32, 3), dtype=np.uint8))
    source = load_source(run, ExportConfig())
    assert (len(source.calibrate), len(source.judge)) == (300, 212)


@pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors"])
def test_a_run_without_a_finished_epoch_is_said_to_be_one(run: Path, name: str):
    (run / name).unlink()
    with pytest.raises(RunError, match=r"no finished epoch yet; .*--resume"):
        load_source(run, ExportConfig())


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path):
    with pytest.raises(RunError, match=r"gone: no such run; .*byol-edge train"):
        load_source(tmp_path / "gone", ExportConfig())
    with pytest.raises(RunError, match="not a run"):
        load_source(tmp_path, ExportConfig())


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"backbone": "conv4"}'])
def test_a_damaged_description_is_named(run: Path, content: str):
    (run / "encoder.json").write_text(content)
    with pytest.raises(RunError, match=r"encoder\.json: unreadable"):
        load_source(run, ExportConfig())


def test_missing_or_foreign_calibration_is_named(run: Path):
    np.savez(run / "calibration.npz", images=np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(RunError, match=r"calibration\.npz: uint8 \[9, 8, 8, 3\]"):
        load_source(run, ExportConfig())
    for content in (b"", b"junk"):
        (run / "calibration.npz").write_bytes(content)
        with pytest.raises(RunError, match=r"calibration\.npz: no calibration images"):
            load_source(run, ExportConfig())
    (run / "calibration.npz").unlink()
    with pytest.raises(RunError, match=r"keeps no images to calibrate with"):
        load_source(run, ExportConfig())


def test_the_target_is_another_network_and_said_to_be_it(finished_run: Path):
    online, target = (load_source(finished_run, ExportConfig(network=network)) for network in ("online", "target"))
    assert (online.provenance["network"], target.provenance["network"]) == ("online", "target")
    checkpoint = torch.load(finished_run / "last.pt", weights_only=True)["byol"]
    expected = checkpoint["target_backbone.conv1.weight"]
    assert torch.equal(target.network.backbone.state_dict()["conv1.weight"], expected)
    assert not torch.equal(online.network.backbone.state_dict()["conv1.weight"], expected)


def test_a_target_that_is_not_there_is_named(run: Path):
    (run / "last.pt").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        load_source(run, ExportConfig(network="target"))
    (run / "last.pt").unlink()
    with pytest.raises(RunError, match=r"holds no last\.pt, where the target network is"):
        load_source(run, ExportConfig(network="target"))
    load_source(run, ExportConfig())
