from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import Bundle, BundleError, Encoder
from byol_edge.runtime.fidelity import Vectors
from byol_edge.runtime.self_test import run_self_test
from PIL import Image
from sabotage import change_golden


@pytest.mark.parametrize("variant", ["fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"])
def test_a_good_bundle_passes(finished_bundle: Path, variant: str):
    result = Encoder(finished_bundle, variant).self_test()
    assert result.passed
    assert result.images == 16
    assert result.to_export > 0.9999
    assert result.pixel_error == 0


def tampered(bundle: Path, change: Callable[[Vectors], Vectors]) -> tuple[str, ...]:
    encoder = Encoder(bundle, "fp32.onnx")
    opened = Bundle.open(bundle)
    run = lambda pixels: change(encoder.run(pixels))  # noqa: E731
    return run_self_test(opened, opened.variants["fp32.onnx"], "onnxruntime", run, encoder.run_maps).failures


def test_what_an_engine_can_do_wrong_is_seen(finished_bundle: Path):
    def with_a_nan(vectors: Vectors) -> Vectors:
        vectors[3] = np.nan
        return vectors

    assert tampered(finished_bundle, lambda vectors: vectors) == ()
    assert any("unit length" in line for line in tampered(finished_bundle, lambda vectors: vectors * 1.1))
    assert any("at export" in line for line in tampered(finished_bundle, lambda vectors: vectors[::-1]))
    assert any("nan" in line for line in tampered(finished_bundle, with_a_nan))


def test_another_resize_is_seen(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    resize = Image.Image.resize

    def without_antialiasing(image: Image.Image, size: tuple[int, int], *_: Any, **__: Any) -> Image.Image:
        return resize(image, size, Image.Resampling.NEAREST)

    monkeypatch.setattr(Image.Image, "resize", without_antialiasing)
    failures = Encoder(finished_bundle).self_test().failures
    assert "of 6 decode to other pixels than at export" in failures[0]
    assert "resized otherwise here" in failures[0]


def test_ignored_orientation_is_seen(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image.Image, "getexif", lambda image: Image.Exif())
    failures = Encoder(finished_bundle).self_test().failures
    assert [line.split()[0] for line in failures] == ["golden/rotated.jpg"]


def test_a_changed_reference_is_refused(bundle: Path):
    file = bundle / "golden.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"golden\.npz: changed"):
        Encoder(bundle).self_test()


def test_an_engine_is_held_to_what_it_gave_itself_at_export(bundle: Path):
    """Where one rounds INT8 otherwise than the other does, neither has moved."""

    def turn(arrays: dict[str, Any]) -> None:
        arrays["int8.onnx"] = np.roll(arrays["int8.onnx"], 1, axis=1)

    change_golden(bundle, turn)
    assert Encoder(bundle, "int8.onnx", "openvino").self_test().moved == ()
    assert Encoder(bundle, "int8.onnx", "onnxruntime").self_test().moved
    # A bundle that was exported without that engine has the variant's own.
    change_golden(bundle, lambda arrays: arrays.pop("int8.onnx:openvino"))
    assert Encoder(bundle, "int8.onnx", "openvino").self_test().moved
