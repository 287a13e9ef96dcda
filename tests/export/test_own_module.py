"""A module of a user's own from export to validation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.evaluate.layers import measure_layers
from byol_edge.evaluate.reference import load_own_network, load_reference
from byol_edge.evaluate.validate import validate
from byol_edge.export import search, tuning
from byol_edge.export.bundling import Export, export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.models.backbones import conv4
from byol_edge.models.starts import find_path
from byol_edge.models.weights import load_encoder
from byol_edge.runtime import Bundle, BundleError, Encoder, Preprocessing, RunError, UsageError, find_images
from byol_edge.runtime.files import sha256
from byol_edge.runtime.preprocessing import prepare_all
from byol_edge.runtime.run import Run
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

pytestmark = pytest.mark.usefixtures("short_timing")

HALF = (0.5, 0.5, 0.5)
CONFIG = ExportConfig(formats=("onnx",), image_size=32, mean=HALF, std=HALF)


class Own(nn.Module):
    """A block that is used twice, two layers of one weight, and names that this project has for parts of its own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Conv2d(3, 8, 3, stride=2)
        self.scale = nn.Parameter(torch.ones(1))
        self.tail = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.tail[1].weight = self.tail[0].weight
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.backbone(images)) * self.scale
        features = features + functional.relu(self.block(features))
        features = features + functional.relu(self.block(features))
        vectors = self.dropout(features.mean((2, 3)))
        return self.tail[1](functional.relu(self.tail[0](vectors)))[:, :, None, None]

    def fuse(self) -> None:
        """Not what timm means by that name."""
        raise RuntimeError("another fuse")


class Thin(Own):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :5]


class FixedBatch(Own):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).reshape(len(images), -1)


class Branching(Own):
    def forward(self, images: Tensor) -> Tensor:
        vectors = super().forward(images)
        return vectors if vectors.sum() > 0 else -vectors


class Rare(Own):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.fft.rfft2(images).abs())


@pytest.fixture(scope="module")
def own_bundle(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Own(), with shorter vectors, so that it has a tail."""
    out = tmp_path_factory.mktemp("own") / "b"
    config = ExportConfig(image_size=32, mean=HALF, std=HALF, calibration=photos, dimensions=6, int8=True)
    assert isinstance(export_bundle(Own(), out, config), Export)
    return out


def test_a_module_becomes_a_bundle_like_any_other(own_bundle: Path, photos: Path):
    encoder = Encoder(own_bundle, "fp32.onnx")
    assert encoder.preprocessing == Preprocessing(32, HALF, HALF)
    assert encoder.self_test().passed
    assert encoder.embed(find_images(photos)[:3]).shape == (3, 6)
    assert Encoder(own_bundle / "int8.onnx").id == Encoder(own_bundle, "int8.onnx").id
    result = validate(own_bundle, photos, module=Own())
    assert (result.failures, result.difference, set(result.floors)) == ([], "", {"raw pixels"})


def test_its_vectors_are_the_modules(photos: Path, tmp_path: Path):
    export_bundle(Own(), tmp_path / "b", CONFIG)
    encoder = Encoder(tmp_path / "b")
    pixels = prepare_all(find_images(photos)[:20], encoder.preprocessing)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        expected = Own().eval()(images).flatten(1)
    np.testing.assert_allclose(encoder.run(pixels), functional.normalize(expected).numpy(), atol=1e-5)


def test_the_manifest_says_that_pytorchs_side_cannot_be_rebuilt(own_bundle: Path):
    bundle = Bundle.open(own_bundle)
    name = f"{Own.__module__}:Own"
    assert bundle.manifest["network"] == {"module": name, "can_be_rebuilt": False}
    assert (bundle.module, bundle.provenance.init, bundle.provenance.seed) == (name, name, None)
    assert bundle.manifest["files"]["encoder.safetensors"]["sha256"] == sha256(bundle.read("encoder.safetensors"))
    for rebuild in (load_own_network, lambda bundle: find_path(bundle.path), lambda bundle: bundle.encoder_spec):
        with pytest.raises(BundleError, match=r"cannot be rebuilt from it"):
            rebuild(bundle)
    for network in ({"module": 3}, {}, {"backbone": "conv4"}):
        broken = {**bundle.manifest, "network": network}
        (own_bundle.parent / "broken").mkdir(exist_ok=True)
        (own_bundle.parent / "broken" / "manifest.json").write_text(json.dumps(broken))
        with pytest.raises(BundleError, match="not a manifest of this project"):
            Bundle.open(own_bundle.parent / "broken")


def test_validation_asks_for_the_module_and_knows_another(own_bundle: Path, photos: Path):
    with pytest.raises(UsageError, match=r"cannot be rebuilt .*:Own\); give the same one again, as at export: module="):
        validate(own_bundle, photos)
    with pytest.raises(UsageError, match="cannot be rebuilt"):
        measure_layers(own_bundle, photos)
    assert "block:2" in [layer.name for layer in measure_layers(own_bundle, photos, module=Own())["int8.onnx"]]
    result = validate(own_bundle, photos, variant="fp32.onnx", module=Own(seed=1))
    assert f"Own holds other weights than {own_bundle}: 8 of 11 tensors differ" in result.difference
    assert "Own holds other weights than the bundle" in result.failures[0]
    with pytest.raises(UsageError, match=r"gives vectors of 5 numbers, .* one that gives 8"):
        load_reference(Bundle.open(own_bundle), module=Thin())
    with pytest.raises(UsageError, match=r"against=x: a module is what to compare with"):
        load_reference(Bundle.open(own_bundle), Path("x"), Own())


def test_state_that_is_no_weight_shows_in_the_golden_images(own_bundle: Path, photos: Path):
    module = Own()
    module.dropout = nn.Softshrink(0.3)  # type: ignore[assignment]
    result = validate(own_bundle, photos, variant="fp32.onnx", module=module)
    assert result.difference == ""
    assert result.around[0].startswith("the module is not what the bundle was exported from")


def test_any_bundle_can_be_held_against_a_module(finished_bundle: Path, finished_run: Path, photos: Path):
    trained = Run(finished_run).read_encoder()
    module = load_encoder(trained.weights, trained.spec, "run")
    assert validate(finished_bundle, photos, variant="fp32.onnx", module=module).failures == []
    assert validate(finished_bundle, photos, variant="fp32.onnx", module=conv4()).failures


def test_the_same_module_gives_the_same_bytes(tmp_path: Path):
    for name in "ab":
        export_bundle(Own().train(name == "a"), tmp_path / name, CONFIG)
    for file in (tmp_path / "a").iterdir():
        if file.is_file() and file.name != "measured.json":
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (ExportConfig(), "does not say how large its images are; give image_size=PIXELS"),
        (ExportConfig(image_size=32, backbone="conv4"), "backbone=conv4: a module is a backbone itself"),
        (ExportConfig(image_size=32, network="target"), "no projector"),
        (ExportConfig(image_size=32, with_projector=True), "no projector"),
    ],
)
def test_what_is_for_others_is_refused(config: ExportConfig, reason: str, tmp_path: Path):
    with pytest.raises(UsageError, match=reason):
        export_bundle(Own(), tmp_path / "b", config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (FixedBatch(), r"takes their number for a constant, as len\(x\)"),
        (Branching(), r"cannot trace .* at .*test_own_module\.py:\d+: .*; code that branches on values"),
        (Rare(), "a device would refuse this network .* the operator 'DFT'"),
    ],
    ids=["batch", "branch", "operator"],
)
def test_what_cannot_be_exported_says_so(
    module: nn.Module, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(RunError, match=reason) as refused:
        export_bundle(module, tmp_path / "b", CONFIG)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    assert "def forward" not in capfd.readouterr().err


def test_mean_and_std_are_said_to_be_a_guess(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(UsageError):
        export_bundle(nn.Flatten(), tmp_path / "b", ExportConfig(image_size=32))
    assert "assumed: mean and std of its images: ImageNet's" in caplog.text


class NoGradient(Own):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


def with_weight_norm() -> nn.Module:
    module = Own()
    parametrizations.weight_norm(module.block)
    return module


@pytest.mark.parametrize("made", [NoGradient, with_weight_norm])
def test_what_cannot_be_fine_tuned_is_a_failed_trial(
    made: type[nn.Module], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(search, "GOOD_COSINE", 2)  # no trial is good enough
    monkeypatch.setattr(tuning, "STEPS", 2)
    config = ExportConfig(formats=("onnx",), image_size=32, mean=HALF, std=HALF, calibration=photos, int8=True)
    module = made()
    tried = export_bundle(module, tmp_path / "b", config).searches["int8.onnx"].tried
    tuned = [trial for trial in tried if "fine-tuned" in trial.name]
    assert tuned
    assert all(trial.error for trial in tuned)
    assert validate(tmp_path / "b", photos, variant="fp32", module=module).failures == []
