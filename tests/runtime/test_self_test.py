from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import Bundle, BundleError, Encoder, Preprocessing
from byol_edge.runtime import preprocessing as preprocessing_module
from byol_edge.runtime.preprocessing import Box
from byol_edge.runtime.self_test import run_self_test
from PIL import Image


@pytest.mark.parametrize("variant", ["fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"])
def test_a_good_bundle_passes(finished_bundle: Path, variant: str):
    result = Encoder(finished_bundle, variant).self_test()
    assert result.passed
    assert result.images == 16
    assert result.to_export > 0.9999
    assert result.pixel_error == 0


def tampered(bundle: Path, change) -> tuple[str, ...]:
    encoder = Encoder(bundle, "fp32.onnx")
    opened = Bundle.open(bundle)
    return run_self_test(opened, opened.variants["fp32.onnx"], lambda pixels: change(encoder.run(pixels))).failures


def test_what_an_engine_can_do_wrong_is_seen(finished_bundle: Path):
    def with_a_nan(vectors: np.ndarray) -> np.ndarray:
        vectors[3] = np.nan
        return vectors

    assert tampered(finished_bundle, lambda vectors: vectors) == ()
    assert any("unit length" in line for line in tampered(finished_bundle, lambda vectors: vectors * 1.1))
    assert any("at export" in line for line in tampered(finished_bundle, lambda vectors: vectors[::-1]))
    assert any("nan" in line for line in tampered(finished_bundle, with_a_nan))


def test_another_resize_is_seen(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def without_antialiasing(image: Image.Image, box: Box, preprocessing: Preprocessing, name: str) -> Image.Image:
        side = preprocessing.image_size
        return image.resize((side, side), Image.Resampling.NEAREST)

    monkeypatch.setattr(preprocessing_module, "_resize", without_antialiasing)
    failures = Encoder(finished_bundle).self_test().failures
    assert "of 6 decode to other pixels than at export" in failures[0]
    assert "resized otherwise here" in failures[0]


def test_ignored_orientation_is_seen(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preprocessing_module, "_upright", lambda image: (image, 1))
    failures = Encoder(finished_bundle).self_test().failures
    assert [line.split()[0] for line in failures] == ["golden/rotated.jpg"]


def test_a_changed_reference_is_refused(bundle: Path):
    file = bundle / "golden.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"golden\.npz: changed"):
        Encoder(bundle).self_test()
