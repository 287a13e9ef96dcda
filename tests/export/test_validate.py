import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.export.validate import load_network, validate
from byol_edge.models.backbones import build_backbone
from byol_edge.runtime import Bundle, BundleError, ImageError
from PIL import Image
from shapes import replace_weights


def test_a_good_bundle_passes_on_images_with_classes(finished_bundle: Path, photos: Path):
    result = validate(finished_bundle, photos)
    assert result.failures == []
    assert (result.images, result.classes, len(result.variants)) == (120, 3, 4)
    assert result.accuracy is not None
    for each in result.variants:
        assert each.accuracy == pytest.approx(result.accuracy, abs=0.1)
        assert each.fidelity.overlap is not None


def test_without_class_folders_there_is_no_accuracy(finished_bundle: Path, photos: Path):
    result = validate(finished_bundle, photos / "disc")
    assert (result.classes, result.accuracy) == (0, None)
    assert result.variants[0].accuracy is None


def test_one_variant_can_be_asked_for(finished_bundle: Path, photos: Path):
    assert [each.name for each in validate(finished_bundle, photos, "int8").variants] == ["int8.onnx", "int8.xml"]


def test_variants_that_are_not_here_are_left_out(bundle: Path, photos: Path):
    (bundle / "int8.bin").unlink()
    assert [each.name for each in validate(bundle, photos).variants] == ["fp32.onnx", "fp32.xml", "int8.onnx"]


def test_unreadable_images_are_left_out_and_named(finished_bundle: Path, photos: Path, tmp_path: Path):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "broken.jpg").write_bytes(b"x")
    result = validate(finished_bundle, images)
    assert result.images == 120
    assert len(result.unreadable) == 1
    assert "broken.jpg" in result.unreadable[0]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="none of its 1 images"):
        validate(finished_bundle, tmp_path / "bad")


def test_images_of_all_sizes_and_modes_pass(finished_bundle: Path, tmp_path: Path, random: np.random.Generator):
    for number, (mode, size) in enumerate([("RGB", (99, 31)), ("L", (32, 32)), ("RGBA", (500, 400)), ("P", (8, 90))]):
        pixels = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{number}.png")
    assert validate(finished_bundle, tmp_path).failures == []


def test_weights_of_another_network_fail_and_say_so(bundle: Path, photos: Path):
    replace_weights(bundle, build_backbone("conv4", 32))
    failures = validate(bundle, photos).failures
    assert any(line.startswith("fp32.onnx (onnxruntime): lowest cosine to PyTorch") for line in failures)
    assert any(line.startswith("int8.xml (openvino): mean cosine to PyTorch") for line in failures)


def test_slightly_changed_weights_are_seen_in_fp32(bundle: Path, photos: Path):
    network = load_network(Bundle.open(bundle)).backbone
    with torch.no_grad():
        weight = network.get_parameter("conv4.weight")
        weight *= 1 + 0.01 * torch.randn(weight.shape)
    replace_weights(bundle, network)
    assert {line.split()[0] for line in validate(bundle, photos).failures} >= {"fp32.onnx", "fp32.xml"}


def test_changed_weights_are_refused(bundle: Path, photos: Path):
    with (bundle / "encoder.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"\x01\x02")
    with pytest.raises(BundleError, match=r"encoder\.safetensors: changed"):
        validate(bundle, photos)
