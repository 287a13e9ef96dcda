from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from byol_edge.runtime import EngineError
from byol_edge.runtime.backend import ModelBytes
from byol_edge.runtime.errors import MOST_CHARACTERS
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


def change(model: ModelBytes, how: str) -> ModelBytes:
    """A model that ONNX Runtime refuses."""
    proto = onnx.load_from_string(model.parts[0])
    if how == "a name that is not UTF-8":
        content = proto.SerializeToString().replace(b"permute", b"perm\xe8\xffe", 1)
        return ModelBytes("onnx", (content,))
    if how == "an operator that nobody knows":
        proto.graph.node[3].op_type = "Nonsense\x1b[31m" + "x" * 100_000
    if how == "an opset of the future":
        proto.opset_import[0].version = 99
    return ModelBytes("onnx", (proto.SerializeToString(),))


@pytest.mark.parametrize(
    "how",
    [
        "a name that is not UTF-8",
        "an operator that nobody knows",
        "an opset of the future",
    ],
)
def test_what_it_refuses_is_an_error_of_one_line_and_nothing_is_printed(
    model: ModelBytes, capfd: pytest.CaptureFixture[str], how: str
):
    with pytest.raises(EngineError, match=r"^ONNX Runtime [\d.]+ ") as error:
        OnnxRuntimeBackend.load(change(model, how), threads=1)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < MOST_CHARACTERS + 100
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_prints_nothing(model: ModelBytes, capfd: pytest.CaptureFixture[str]):
    proto = onnx.load_from_string(model.parts[0])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7, -1]), "sevenths"))
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["before", "sevenths"], ["embeddings"]))
    backend = OnnxRuntimeBackend.load(ModelBytes("onnx", (proto.SerializeToString(),)), threads=1)
    with pytest.raises(Exception, match="cannot be reshaped"):
        backend.run(np.zeros((2, 32, 32, 3), np.uint8))
    assert capfd.readouterr() == ("", "")
