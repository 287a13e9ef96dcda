import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.runtime import ImageError, RunError
from byol_edge.runtime.run import DESCRIPTION


def test_calibration_images_are_split_three_to_one(finished_run: Path):
    source = load_source(finished_run, ExportConfig())
    assert (len(source.calibrate), len(source.judge)) == (81, 27)
    assert not source.network.training


def test_of_many_three_hundred_calibrate(run: Path, random: np.random.Generator):
    np.savez(run / "calibration.npz", images=random.integers(0, 256, (512, 32, 32, 3), dtype=np.uint8))
    source = load_source(run, ExportConfig())
    assert (len(source.calibrate), len(source.judge)) == (300, 212)


def test_a_bundle_is_said_not_to_be_a_run(finished_bundle: Path):
    with pytest.raises(RunError, match=r"not a run: it holds no config\.json"):
        load_source(finished_bundle, ExportConfig())


def test_a_run_without_a_finished_epoch_is_said_to_be_one(run: Path):
    (run / "encoder.safetensors").unlink()
    with pytest.raises(RunError, match=r"no finished epoch yet; .*--resume"):
        load_source(run, ExportConfig())


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path):
    with pytest.raises(RunError, match=r"gone: no such run; .*byol-edge train"):
        load_source(tmp_path / "gone", ExportConfig())
    with pytest.raises(RunError, match="not a run"):
        load_source(tmp_path, ExportConfig())


@pytest.mark.parametrize("description", ["{", "[]", "null", '{"backbone": "conv4"}', None])
def test_a_damaged_description_is_named(run: Path, description: str | None):
    file = run / "encoder.safetensors"
    weights = safetensors.torch.load(file.read_bytes())
    file.write_bytes(safetensors.torch.save(weights, None if description is None else {DESCRIPTION: description}))
    with pytest.raises(RunError, match=r"encoder\.safetensors: does not say what it is"):
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
    with pytest.raises(RunError, match="keeps no images to calibrate with and to judge by; give calibration=DIR"):
        load_source(run, ExportConfig())


def test_a_folder_of_one_image_cannot_calibrate(run: Path, photos: Path, tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "image.png").write_bytes((photos / "disc" / "00.png").read_bytes())
    with pytest.raises(ImageError, match=r"calibration=.*one has one readable image"):
        load_source(run, ExportConfig(calibration=str(tmp_path / "one")))


def test_the_target_is_another_network_and_said_to_be_it(finished_run: Path):
    online, target = (load_source(finished_run, ExportConfig(network=network)) for network in ("online", "target"))
    assert (online.provenance.network, target.provenance.network) == ("online", "target")
    checkpoint = torch.load(finished_run / "last.pt", weights_only=True)["objective"]
    expected = checkpoint["target_backbone.conv1.weight"]
    assert torch.equal(target.network.backbone.state_dict()["conv1.weight"], expected)
    assert not torch.equal(online.network.backbone.state_dict()["conv1.weight"], expected)


def test_a_target_that_is_not_there_is_named(run: Path):
    (run / "last.pt").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        load_source(run, ExportConfig(network="target"))
    (run / "last.pt").unlink()
    with pytest.raises(RunError, match=r"last\.pt: not there, and it alone holds what network=target asks for"):
        load_source(run, ExportConfig(network="target"))
    load_source(run, ExportConfig())


def test_the_weights_of_a_bundle_hold_no_metadata(finished_run: Path):
    weights = load_source(finished_run, ExportConfig()).weights
    assert "__metadata__" not in json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
