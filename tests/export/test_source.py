import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from byol_edge.evaluate.validate import validate
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.models.backbones import conv4
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.starts import Start
from byol_edge.runtime import Encoder, ImageError, Preprocessing, RunError, UsageError
from byol_edge.runtime.run import DESCRIPTION, Run


def test_calibration_images_are_split_three_to_one(finished_run: Path):
    source = load_source(finished_run, ExportConfig())
    assert (len(source.calibrate), len(source.judge)) == (81, 27)
    assert not source.network.training


def test_of_many_three_hundred_calibrate(run: Path, random: np.random.Generator):
    np.savez(run / "calibration.npz", images=random.integers(0, 256, (512, 32, 32, 3), dtype=np.uint8))
    source = load_source(run, ExportConfig())
    assert (len(source.calibrate), len(source.judge)) == (300, 212)


def test_a_run_without_a_finished_epoch_is_said_to_be_one(run: Path):
    (run / "encoder.safetensors").unlink()
    with pytest.raises(RunError, match=r"no finished epoch yet; .*--resume"):
        load_source(run, ExportConfig())


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path):
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(RunError, match=r"no run, no bundle, no checkpoint, .* \(no such file\)"):
            load_source(path, ExportConfig())


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


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights of conv4 as another project would keep them."""
    torch.manual_seed(3)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in conv4().state_dict().items()}}, tmp_path / "theirs.ckpt")
    return tmp_path / "theirs.ckpt"


def test_a_checkpoint_is_exported_by_what_is_said_of_it(
    checkpoint: Path, photos: Path, caplog: pytest.LogCaptureFixture
):
    config = ExportConfig(
        backbone="conv4", image_size=32, calibration=photos, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    source = load_source(checkpoint, config)
    assert (source.spec.backbone, source.spec.stem, source.spec.embedding_size) == ("conv4", "standard", 256)
    assert source.spec.preprocessing == Preprocessing(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert (source.provenance.init, source.provenance.seed, source.drawn) == (str(checkpoint), None, False)
    torch.manual_seed(3)
    expected = InferenceNetwork(conv4().eval(), source.spec.preprocessing)
    np.testing.assert_allclose(source.reference, embed_pixels(expected, source.judge), atol=1e-6)
    assert "guess" not in caplog.text


def test_what_a_checkpoint_does_not_say_is_asked_for_or_said_to_be_a_guess(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(UsageError, match="give image_size=PIXELS"):
        load_source(checkpoint, ExportConfig())
    source = load_source(checkpoint, ExportConfig(image_size=32))
    assert source.drawn
    assumed = ["network: conv4, by its tensors' names and shapes", "mean and std of its images: ImageNet's"]
    assert source.provenance.assumptions == assumed
    assert all(f"assumed: {each}" in caplog.text for each in assumed)
    source = load_source(checkpoint, ExportConfig(image_size=32, backbone="conv4", mean=(0.5, 0.5, 0.5)))
    assert source.provenance.assumptions == ["std of its images: ImageNet's"]
    assert "no folder of calibration images" in caplog.text
    with pytest.raises(RunError, match="not the weights of resnet18"):
        load_source(checkpoint, ExportConfig(backbone="resnet18", image_size=32))


def test_what_only_runs_have_and_what_only_others_lack_is_refused(
    checkpoint: Path, finished_run: Path, finished_bundle: Path
):
    with pytest.raises(UsageError, match=r"with_projector=True: .*no projector of linear layers"):
        load_source(checkpoint, ExportConfig(image_size=32, with_projector=True))
    with pytest.raises(UsageError, match=r"network=target: .*holds none"):
        load_source(checkpoint, ExportConfig(image_size=32, network="target"))
    with pytest.raises(UsageError, match=r"timm:resnet18\S* holds one network"):
        load_source("timm:resnet18", ExportConfig(network="target"))
    with pytest.raises(UsageError, match="a run has its own"):
        load_source(finished_run, ExportConfig(image_size=64))
    with pytest.raises(UsageError, match="is a bundle already"):
        load_source(finished_bundle, ExportConfig())
    with pytest.raises(UsageError, match="backbone=conv4: timm:resnet18"):
        load_source("timm:resnet18", ExportConfig(backbone="conv4"))
    with pytest.raises(UsageError, match=r"mean=.*: is of pixels from 0 to 1; divide yours by 255"):
        ExportConfig(mean=(123.675, 116.28, 103.53))
    for wrong in ({"mean": (0.5,)}, {"std": (0.0, 1.0, 1.0)}, {"std": (float("nan"),) * 3}, {"image_size": 8}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ExportConfig(**wrong)  # type: ignore[arg-type]


def test_a_bundle_of_a_checkpoint_is_whole_and_validates(checkpoint: Path, photos: Path, tmp_path: Path):
    config = ExportConfig(formats=("onnx",), backbone="conv4", image_size=32)
    exported = export_bundle(checkpoint, tmp_path / "b", config)
    assert exported.golden_images == 0  # drawn ones are nobody's
    assert Encoder(tmp_path / "b").self_test().passed
    result = validate(tmp_path / "b", photos)
    assert not result.failures
    assert set(result.floors) == {"untrained", "raw pixels"}


def test_license_and_source_go_into_the_bundle(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = Run(finished_run).read_encoder()
    state = safetensors.torch.load(weights.weights)
    start = Start("package:mine", "a package", lambda: state, "conv4", "standard", 32, license="MIT", source="mine 1.0")
    monkeypatch.setattr("byol_edge.export.source.find_start", lambda *_: start)
    export_bundle("package:mine", tmp_path / "b", ExportConfig(formats=("onnx",)))
    told = json.loads((tmp_path / "b" / "manifest.json").read_text())["provenance"]["training"]
    assert (told["init"], told["license"], told["source"]) == ("package:mine", "MIT", "mine 1.0")
