"""Everything is measured in one pass; a broken variant is reported, not raised."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from byol_edge.evaluate.compare import compare_encoders
from byol_edge.evaluate.validate import validate
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.report.conclusion import conclude
from byol_edge.report.measure import Measured, _keep_usable, measure
from byol_edge.report.sources import name_variant
from byol_edge.runtime import BundleError, ByolEdgeError, Encoder, EngineError, ImageError, UsageError
from byol_edge.runtime.bundle import Bundle
from PIL import Image
from sabotage import double_a_scale, write_model
from torch import nn


def test_figures_are_those_of_compare_and_validate(
    measured: Measured, finished_run: Path, finished_bundle: Path, photos: Path
):
    report = measured.report
    alone = compare_encoders(["raw", str(finished_run), str(finished_bundle)], photos)
    assert [each.name for each in report.comparison.encoders] == [each.name for each in alone.encoders]
    for mine, its in zip(report.comparison.encoders, alone.encoders, strict=True):
        assert (mine.consistency, mine.accuracy, mine.gap) == (its.consistency, its.accuracy, its.gap)
        assert (mine.timing is None) == (its.timing is None)
        assert mine.fidelity == pytest.approx(its.fidelity)
    validation = validate(finished_bundle, photos)
    assert report.validation is not None
    assert report.validation.floors["untrained"] == validation.floors["untrained"]
    for mine, its in zip(report.validation.variants, validation.variants, strict=True):
        assert (mine.name, mine.engine, mine.failures) == (its.name, its.engine, its.failures)
        assert mine.fidelity.cosine_mean == pytest.approx(its.fidelity.cosine_mean)


def taken(bundle: Path, precision: str) -> str:
    encoder = Encoder(bundle, Bundle.open(bundle).best_known(precision))
    return name_variant(encoder.variant, encoder.engine)


def test_what_is_shown_of_it(measured: Measured, finished_bundle: Path):
    report = measured.report
    assert report.subject == str(finished_bundle)
    assert report.images[0].startswith(report.classes[0] or "?")  # type: ignore[index]
    assert [each.encoder for each in report.queries[0].by] == ["raw pixels", "PyTorch", report.quantized]
    assert report.quantized == taken(finished_bundle, "int8")
    assert set(report.timings) > {"PyTorch", "int8.xml on openvino"}
    assert set(report.layers) == {"fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"}
    assert report.training is not None
    assert "loss (0 to 8)" in [each.title for each in report.training.curves]
    assert report.broken == {}
    assert measured.tiles.shape == (120, 32, 32, 3)


def test_a_broken_variant_and_one_that_cannot_be_opened_are_told(bundle: Path, photos: Path):
    double_a_scale(bundle)
    content = bytearray((bundle / "int8.bin").read_bytes())
    content[50] ^= 1
    (bundle / "int8.bin").write_bytes(content)
    report = measure([str(bundle)], photos).report
    assert list(report.broken) == ["int8.xml on openvino"]
    conclusion = conclude(report)
    assert conclusion.kind == ("stop" if report.default and report.default.startswith("int8") else "doubtful")
    for name in ("int8.onnx on onnxruntime", "int8.onnx on openvino", "int8.xml on openvino"):
        assert name in conclusion.sentence
    assert conclusion.advice.startswith("fp32.onnx on onnxruntime is within its gates")
    assert report.shipped == taken(bundle, "fp32")
    assert report.moved


def test_a_variant_that_gives_nan_is_set_apart(bundle: Path, photos: Path):
    model = onnx.load(bundle / "int8.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["whole" if each == output else each for each in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    model.graph.node.append(onnx.helper.make_node("Add", ["whole", "nan"], [output]))
    write_model(bundle, "int8.onnx", model)
    report = measure([str(bundle)], photos).report
    assert "not finite" in report.broken["int8.onnx on onnxruntime"]
    assert report.quantized in (None, "int8.xml on openvino")
    assert conclude(report).kind in ("stop", "doubtful")


def test_a_damaged_encoder_leaves_the_variants(bundle: Path, photos: Path):
    (bundle / "encoder.safetensors").write_bytes(b"x")
    report = measure([str(bundle)], photos).report
    assert report.validation is None
    assert "changed since export" in report.broken["PyTorch"]
    assert conclude(report).kind == "doubtful"
    assert [each.encoder for each in report.queries[0].by] == ["raw pixels", taken(bundle, "int8")]


def test_without_anything_that_opens_there_is_no_report(bundle: Path, photos: Path):
    for name in ("encoder.safetensors", "fp32.onnx", "fp32.xml", "int8.xml"):
        (bundle / name).unlink()
    (bundle / "int8.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"nothing of it can be used: .*changed since export"):
        measure([str(bundle)], photos)


def test_a_default_that_is_not_here_is_told(bundle: Path, photos: Path):
    default = Bundle.open(bundle).default.name
    (bundle / default).unlink()
    conclusion = conclude(measure([str(bundle)], photos).report)
    assert conclusion.kind == "doubtful"
    assert f"{default}: it is the default, but its files are not here" in conclusion.sentence


def test_a_damaged_file_without_pytorch_is_not_called_good(bundle: Path, photos: Path):
    (bundle / "encoder.safetensors").unlink()
    (bundle / "int8.onnx").write_bytes(b"x")
    conclusion = conclude(measure([str(bundle)], photos).report)
    assert conclusion.kind == "stop"
    assert conclusion.sentence.startswith("int8.onnx on onnxruntime and int8.onnx on openvino of")
    assert conclusion.advice.endswith("copy the bundle again from where it was exported, or export it again.")


@pytest.mark.parametrize("name", ["tiles", "PyTorch", "untrained"])
def test_a_name_that_the_report_uses_is_refused(
    name: str, finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(finished_run, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"write \./{name} for the path"):
        measure([name, str(finished_bundle)], photos)
    assert len(measure([f"./{name}", str(finished_bundle)], photos).report.comparison.encoders) == 4


def test_damaged_golden_files_are_told(bundle: Path, photos: Path):
    (bundle / "golden.npz").write_bytes(b"x")
    report = measure([str(bundle)], photos).report
    assert "golden.npz" in report.broken["all variants"]
    assert conclude(report).kind == "stop"


def test_a_module_of_ones_own_is_compared_but_not_held_against_pytorch(photos: Path, tmp_path: Path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    export_bundle(module, tmp_path / "own", ExportConfig(image_size=32))
    report = measure([str(tmp_path / "own")], photos).report
    assert "module of its maker's own" in report.broken["PyTorch"]
    assert "cannot be held against PyTorch" in conclude(report).sentence


def test_a_run_alone_and_a_handful_of_images(finished_run: Path, photos: Path, tmp_path: Path):
    for number in range(5):
        Image.open(photos / "disc" / f"{number:02}.png").save(tmp_path / f"{number}.png")
    report = measure([str(finished_run)], tmp_path).report
    assert report.validation is None
    assert report.classes is None
    assert "has not been exported" in conclude(report).sentence
    assert len(report.queries[0].by[0].images) == 4
    assert report.moved == ()


def test_other_encoders_have_to_give_vectors(random: np.random.Generator):
    vectors = random.normal(size=(4, 3)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert set(_keep_usable({"one": unit, "tiles": vectors}, None)) == {"one"}
    with pytest.raises(EngineError, match="other gives vectors with numbers that are not finite"):
        _keep_usable({"one": unit, "other": unit * np.nan}, None)


def test_bad_input(finished_run: Path, photos: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="give an encoder to report on"):
        measure(["raw"], photos)
    with pytest.raises(UsageError, match="given twice"):
        measure([str(finished_run), str(finished_run)], photos)
    with pytest.raises(ByolEdgeError, match="nosuch"):
        measure(["nosuch"], photos)
    with pytest.raises(ImageError, match="no images"):
        measure([str(finished_run)], tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    with pytest.raises(ImageError, match="two images"):
        measure([str(finished_run)], tmp_path)
