from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import VectorFile, save_vectors
from byol_edge.runtime.vector_comparison import compare_vector_files


@pytest.mark.parametrize(
    ("model", "min_cosine", "cosine", "passes"),
    [
        ("abc:fp32.onnx", None, 0.9999, False),
        ("abc:fp32.onnx", None, 0.999995, True),
        ("abc:fp32.onnx", 0.99, 0.9999, True),
        ("abc:fp16.xml", None, 0.9995, True),
        ("abc:int8.onnx", None, 0.995, True),
        ("abc:int8.onnx", None, 0.98, False),
        ("another", None, 0.9999, False),
    ],
)
def test_how_close_two_files_have_to_be_depends_on_the_precision(
    tmp_path: Path, model: str, min_cosine: float | None, cosine: float, passes: bool
):
    turned = np.array([[cosine, (1 - cosine**2) ** 0.5], [0, 1]], np.float32)
    for engine, content in (("onnxruntime", np.eye(2, dtype=np.float32)), ("openvino", turned)):
        save_vectors(tmp_path / f"{engine}.npz", VectorFile(content, ["1.jpg", "2.jpg"], model, engine))
    found = compare_vector_files(tmp_path / "onnxruntime.npz", tmp_path / "openvino.npz", min_cosine)
    assert (found.failures == ()) == passes
    assert found.worst == "1.jpg" and found.engines == ("onnxruntime", "openvino")
