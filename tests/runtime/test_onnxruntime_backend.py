from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from byol_edge.runtime import EngineError
from byol_edge.runtime.backend import ModelBytes
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend


@pytest.fixture(scope="module")
def model(finished_bundle: Path) -> ModelBytes:
    return ModelBytes("onnx", ((finished_bundle / "fp32.onnx").read_bytes(),))


def test_any_batch_size(model: ModelBytes, random: np.random.Generator):
    backend = OnnxRuntimeBackend.load(model, threads=1)
    images = random.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    together = backend.run(images)
    assert together.dtype == np.float32
    for row, image in zip(together, images, strict=True):
        np.testing.assert_allclose(backend.run(image[None])[0], row, atol=1e-5)


@pytest.mark.parametrize("images", [1, 2, 3, 4, 50])
def test_threads_that_share_a_batch_out_keep_its_order(model: ModelBytes, random: np.random.Generator, images: int):
    pixels = random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    expected = OnnxRuntimeBackend.load(model, threads=1).run(pixels)
    np.testing.assert_allclose(OnnxRuntimeBackend.load(model, threads=3).run(pixels), expected, atol=1e-5)


def test_threads_are_those_asked_for(model: ModelBytes, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    threads = []
    make_session = onnxruntime.InferenceSession

    def make_and_note(content: bytes, options: Any, **settings: Any) -> Any:
        threads.append(options.intra_op_num_threads)
        return make_session(content, options, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", make_and_note)
    backend = OnnxRuntimeBackend.load(model, threads=3)
    assert threads == [3]
    backend.run(random.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8))
    assert threads == [3, 1]  # three threads share a batch out, and each call of theirs has one


def test_a_damaged_model_is_refused():
    with pytest.raises(EngineError, match=r"ONNX Runtime .* refuses the model"):
        OnnxRuntimeBackend.load(ModelBytes("onnx", (b"junk",)), threads=1)
