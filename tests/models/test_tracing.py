import logging
from functools import cache

import numpy as np
import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.tracing import Graph, count_multiply_adds, quiet, trace
from byol_edge.runtime import Preprocessing, compare
from byol_edge.runtime.backend import ModelBytes
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend


@cache
def traced(name: str, side: int) -> tuple[InferenceNetwork, Graph]:
    """A network with its graph: tracing takes seconds."""
    network = InferenceNetwork(build_backbone(name, side), Preprocessing(side))
    return network, trace(network)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet18", 32),
        ("mobilenetv3_small_100", 64),
        ("tf_efficientnet_lite0", 64),
        ("repvgg_a0", 64),
        ("mobileone_s0", 64),
    ],
)
def test_a_traced_backbone_computes_what_pytorch_does(name: str, side: int, random: np.random.Generator):
    network, graph = traced(name, side)
    backend = OnnxRuntimeBackend.load(ModelBytes("onnx", (graph.model.SerializeToString(),)), threads=1)
    images = random.integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    reference = embed_pixels(network, images)
    for batch in (1, 5):
        assert compare(reference[:batch], backend.run(images[:batch])).max_error < 1e-4
    names = {node.name for node in graph.model.graph.node}
    assert graph.backbone_nodes < names
    convolutions = {node.name for node in graph.model.graph.node if node.op_type == "Conv"}
    assert convolutions <= graph.backbone_nodes
    assert {node.name for node in graph.model.graph.node if node.op_type == "Gather"} == set()


def test_branches_are_merged_and_the_network_given_is_left_as_it_is():
    network, graph = traced("repvgg_a0", 64)
    assert sum(node.op_type == "Conv" for node in graph.model.graph.node) == 22
    before = build_backbone("repvgg_a0", 64)
    assert [count_convolutions(each) for each in (network.backbone, before)] == [44, 44]


def count_convolutions(network: torch.nn.Module) -> int:
    return sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())


def test_nodes_have_the_names_of_their_modules():
    _, graph = traced("mobilenetv3_small_100", 64)
    names = [node.name for node in graph.model.graph.node]
    assert len(set(names)) == len(names)
    assert {"bn1", "blocks.0.0.se.conv_reduce", "blocks.0.0.se:2", "conv_head"} <= set(names)


def test_multiply_adds_are_counted_per_image():
    counts = count_multiply_adds(traced("resnet18", 32)[1].model)
    assert counts["layer1.0.bn1"] == 64 * 64 * 3 * 3 * 8 * 8  # at 8 × 8 places, after the stem's two strides
    assert len(counts) == 20


def test_quiet_restores_what_it_silences(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError), quiet():
        print("hidden")
        raise ValueError
    print("shown")
    assert capsys.readouterr().out == "shown\n"


def test_quiet_keeps_others_from_setting_up_logging(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    with quiet():
        logging.info("as ONNX Runtime's quantizer does")
    assert logging.root.handlers == []
