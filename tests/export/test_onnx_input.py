import numpy as np
import onnx
import pytest
import torch
from byol_edge.export.onnx_format import OnnxFormat
from byol_edge.export.onnx_input import scale_by_rows
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork
from byol_edge.models.tracing import trace
from byol_edge.runtime import Preprocessing
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend


@pytest.fixture
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    return trace(InferenceNetwork(build_backbone("conv4", 32, "standard").eval(), Preprocessing(32))).model


def embed(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return OnnxRuntimeBackend.load(OnnxFormat().serialize(model), 1).run(images)


def test_pixels_are_scaled_before_they_are_transposed_and_as_before(
    model: onnx.ModelProto, random: np.random.Generator
):
    images = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    before = embed(model, images)
    scale_by_rows(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node][:4] == ["Cast", "Mul", "Add", "Transpose"]
    assert np.allclose(embed(model, images), before, atol=1e-6)


def test_a_graph_of_another_form_is_left_alone(model: onnx.ModelProto):
    scale_by_rows(model)
    before = model.SerializeToString()
    scale_by_rows(model)
    assert model.SerializeToString() == before


def test_a_scaling_that_others_read_is_left_alone(model: onnx.ModelProto):
    front = next(node for node in model.graph.node if node.op_type == "Cast")
    model.graph.node.append(onnx.helper.make_node("Identity", [front.output[0]], ["watched"]))
    before = model.SerializeToString()
    scale_by_rows(model)
    assert model.SerializeToString() == before
