from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import EngineError
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend


def test_any_batch_size(finished_bundle: Path, random: np.random.Generator):
    backend = OnnxRuntimeBackend.load(((finished_bundle / "fp32.onnx").read_bytes(),), threads=1)
    images = random.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    together = backend.run(images)
    assert together.dtype == np.float32
    for row, image in zip(together, images, strict=True):
        np.testing.assert_allclose(backend.run(image[None])[0], row, atol=1e-5)


@pytest.mark.parametrize("images", [1, 2, 3, 4, 50])
def test_threads_that_share_a_batch_out_keep_its_order(finished_bundle: Path, random: np.random.Generator, images: int):
    content = ((finished_bundle / "fp32.onnx").read_bytes(),)
    pixels = random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    expected = OnnxRuntimeBackend.load(content, threads=1).run(pixels)
    np.testing.assert_allclose(OnnxRuntimeBackend.load(content, threads=3).run(pixels), expected, atol=1e-5)


def test_threads_are_those_asked_for(finished_bundle: Path):
    backend = OnnxRuntimeBackend.load(((finished_bundle / "fp32.onnx").read_bytes(),), threads=3)
    assert backend._session.get_session_options().intra_op_num_threads == 3


def test_a_damaged_model_is_refused():
    with pytest.raises(EngineError, match=r"ONNX Runtime .* refuses the model"):
        OnnxRuntimeBackend.load((b"junk",), threads=1)
