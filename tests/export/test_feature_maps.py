"""Feature maps in a bundle: asked for, judged, told, refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from byol_edge.evaluate.layers import measure_layers
from byol_edge.evaluate.validate import validate
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.runtime import Bundle, Encoder, FidelityError, UsageError, fidelity, find_images
from byol_edge.runtime.fidelity import Gate
from commands import call, fails
from torch import nn

pytestmark = pytest.mark.usefixtures("short_timing")

HALF = (0.5, 0.5, 0.5)
VARIANTS = ("fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml")


def test_the_manifest_tells_them_and_how_well_they_agree(mapped_bundle: Path):
    manifest = Bundle.open(mapped_bundle).manifest
    assert [each["name"] for each in manifest["features"]] == ["relu4", "relu2"]
    assert sorted(manifest["variants"]) == list(VARIANTS)
    for name, entry in manifest["variants"].items():
        assert entry["maps"].keys() == entry["own_agreement"].keys() == {"relu2", "relu4"}
        for each in entry["maps"].values():
            assert each["images"] == 27
            assert 1 >= each["agreement_mean"] >= each["agreement_min"] > (0.98 if "int8" in name else 0.99999)


def test_without_any_nothing_is_said_of_them(finished_bundle: Path):
    text = (finished_bundle / "manifest.json").read_text()
    assert "features" not in text
    assert "agreement" not in text
    assert b'"features"' not in (finished_bundle / "fp32.onnx").read_bytes()


def test_a_variant_whose_maps_miss_their_gate_is_not_the_default(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(fidelity.MAP_GATES, "fp16", (Gate("agreement_mean", 1.5, True),))
    config = ExportConfig(fp16=True, formats=("onnx",), features=("relu3",))
    result = export_bundle(finished_run, tmp_path / "b", config)
    fp16 = next(each for each in result.variants if each.precision == "fp16")
    assert fp16.failures == ("relu3: mean agreement with PyTorch 1.000000, needs ≥ 1.5",)
    assert result.default == "fp32.onnx"
    assert not Bundle.open(tmp_path / "b").variants["fp16.onnx"].passes
    assert Encoder(tmp_path / "b", "fp16").self_test().passed  # it is what it was
    monkeypatch.setitem(fidelity.MAP_GATES, "fp32", (Gate("agreement_mean", 1.5, True),))
    with pytest.raises(FidelityError, match=r"fp32\.onnx is not what PyTorch computes: relu3: .*Nothing was written"):
        export_bundle(finished_run, tmp_path / "c", config)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("names", [("relu2", "relu2"), ("",), ("relu2", "")])
def test_a_name_twice_and_an_empty_one_are_refused(names: tuple[str, ...]):
    with pytest.raises(UsageError, match=r"features=.*: has to be names of modules, each once"):
        ExportConfig(features=names)


def test_the_command_asks_for_them_tells_them_and_names_its_flag(
    finished_run: Path, mapped_bundle: Path, tmp_path: Path
):
    export = ("export", finished_run, "--format", "onnx", "--dim", 8, "--out", tmp_path / "b")
    assert "--features relu9: 'relu9' is no module of this backbone; its stages end in relu1 [32, 16, 16]" in fails(
        2, *export, "--features", "relu9"
    )
    assert "--features relu2,: has to be names of modules" in fails(2, *export, "--features", "relu2,")
    assert not (tmp_path / "b").exists()
    shown = call(*export, "--features", "relu3, conv2")
    assert shown.exit_code == 0, shown.stderr
    assert "1.00000 / 1.00000  1.00000 / 1.00000" in shown.stdout
    encoder = Encoder(tmp_path / "b")
    assert (encoder.embedding_size, [each.name for each in encoder.features]) == (8, ["relu3", "conv2"])
    told = "maps        relu4 [256, 2, 2], relu2 [64, 8, 8]"
    for path in (mapped_bundle, mapped_bundle / "int8.onnx"):
        assert told in call("inspect", path).stdout
    assert "Feature maps: agreement with PyTorch's" in call("inspect", mapped_bundle).stdout
    assert len(json.loads(call("inspect", mapped_bundle / "int8.onnx", "--json").stdout)["features"]) == 2
    assert "map of relu4:" in call("self-test", mapped_bundle).stdout


def test_validate_compares_them_on_every_engine(mapped_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    result = validate(mapped_bundle, photos)
    assert result.failures == []
    assert all(each.maps.keys() == {"relu4", "relu2"} for each in result.variants)
    assert {each["maps"]["relu2"]["images"] for each in result.to_json()["variants"]} == {32}
    monkeypatch.setitem(fidelity.MAP_GATES, "int8", (Gate("agreement_mean", 1.5, True),))
    failing = {each.name for each in validate(mapped_bundle, photos).variants if each.failures}
    assert failing == {"int8.onnx", "int8.xml"}
    assert "Feature maps" in call("validate", mapped_bundle, "--data", photos, "--variant", "fp32").stdout


def test_layers_are_measured_as_without_maps(mapped_bundle: Path, finished_bundle: Path, photos: Path):
    measured, plain = (measure_layers(each, photos) for each in (mapped_bundle, finished_bundle))
    for name, layers in plain.items():
        assert [each.name for each in measured[name]] == [each.name for each in layers]
        lowest = 20 if "int8" in name else 80  # 24 on a CPU without VNNI
        assert min(each.signal_to_noise for each in measured[name]) > lowest


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(8, 16, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(images))).mean((2, 3))


def test_a_module_of_ones_own_gives_its_maps(photos: Path, tmp_path: Path):
    config = ExportConfig(
        image_size=32, mean=HALF, std=HALF, calibration=photos, features=("second", "first.1"), int8=True
    )
    export_bundle(Own(), tmp_path / "b", config)
    maps = Encoder(tmp_path / "b").maps(find_images(photos)[:3])
    assert {name: each.shape for name, each in maps.items()} == {"second": (3, 16, 7, 7), "first.1": (3, 8, 15, 15)}
    assert maps["second"].min() < 0
    assert maps["first.1"].min() < 0  # of which the ReLU after it makes another, in place
    assert validate(tmp_path / "b", photos, module=Own()).failures == []
    with pytest.raises(UsageError, match="'third' is no module"):
        export_bundle(Own(), tmp_path / "c", dataclasses.replace(config, features=("third",)))


def test_projections_have_the_backbones_maps(finished_run: Path, tmp_path: Path):
    config = ExportConfig(formats=("onnx",), with_projector=True, features=("relu3",))
    export_bundle(finished_run, tmp_path / "b", config)
    assert Encoder(tmp_path / "b").self_test().maps["relu3"] > 0.99999
