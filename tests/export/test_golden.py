import io
from pathlib import Path

import numpy as np
import pytest
from byol_edge.export.golden import encoded_files, synthetic_images
from byol_edge.runtime import Encoder, Preprocessing, prepare
from PIL import Image


def test_each_file_is_what_decoders_get_wrong():
    images = {name: Image.open(io.BytesIO(content)) for name, content in encoded_files().items()}
    assert images["rotated.jpg"].getexif()[0x0112] == 6
    assert images["cmyk.jpg"].mode == "CMYK"
    assert images["alpha.png"].mode == "RGBA"
    assert images["palette.png"].mode == "P"
    assert images["gray16.png"].mode.startswith("I")
    assert images["large.jpg"].size == (1600, 1200)


def test_all_but_the_alpha_show_the_same_picture():
    pixels = {name: prepare(content, Preprocessing(64)).astype(int) for name, content in encoded_files().items()}
    upright = pixels["large.jpg"]
    for name in ("cmyk.jpg", "palette.png"):
        assert np.abs(pixels[name] - upright).mean() < 20
    assert np.abs(np.rot90(pixels["rotated.jpg"]) - upright).mean() < 10
    assert np.abs(pixels["rotated.jpg"] - upright).mean() > 20


def test_files_are_the_same_each_time_and_small():
    assert encoded_files() == encoded_files()
    assert sum(map(len, encoded_files().values())) < 500_000


def test_a_bundles_reference_holds_every_variant(finished_bundle: Path):
    with np.load(finished_bundle / "golden.npz") as golden:
        assert golden["images"].shape == (16, 32, 32, 3)
        for name in ("pytorch", "fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"):
            assert golden[name].shape == (16, 256)
        assert np.array_equal(
            golden["int8.onnx"], Encoder(finished_bundle, "int8.onnx", "onnxruntime").run(golden["images"])
        )
        # Each engine's own, since INT8 is rounded otherwise by each.
        for name in ("fp32.onnx", "int8.onnx"):
            own = Encoder(finished_bundle, name, "openvino").run(golden["images"])
            assert np.array_equal(golden[f"{name}:openvino"], own)
        recorded = [name for name in golden.files if name.startswith("pixels:")]
    assert sorted(recorded) == sorted(f"pixels:golden/{name}" for name in encoded_files())


@pytest.mark.parametrize("side", [16, 224])
def test_any_model_size(side: int):
    for content in encoded_files().values():
        assert prepare(content, Preprocessing(side)).shape == (side, side, 3)


@pytest.mark.parametrize("side", [16, 224])
def test_synthetic_images_are_no_two_alike_and_the_same_each_time(side: int):
    images = synthetic_images(6, side)
    assert images.shape == (6, side, side, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 6
    assert min(image.std() for image in images) > 5
    assert np.array_equal(images, synthetic_images(6, side))


def test_synthetic_images_are_smooth_as_photographs_are():
    images = synthetic_images(6, 64).astype(float)
    steps = np.abs(np.diff(images, axis=2)).mean()
    assert steps < 0.8 * np.abs(images - images.mean((1, 2), keepdims=True)).mean()
