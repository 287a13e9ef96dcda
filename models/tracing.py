"""A network as an ONNX graph: traced by torch's exporter, its nodes named after the backbone's modules."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import onnx
import torch
from timm.utils import reparameterize_model  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from ..runtime.errors import RunError
from .fusion import list_backbones
from .network import InferenceNetwork, giving_maps

# Old enough for engines of 2023, new enough for torch's exporter.
OPSET = 18
# The layers with weights, as ONNX calls them.
WEIGHTED = ("Conv", "Gemm", "MatMul")
# Before the names of outputs, until it is known which other values have these names.
_OUTPUT = "output:"


@dataclass(frozen=True)
class Graph:
    """An ONNX model, and the names of the nodes that belong to the backbone: the only ones that may be quantized.

    A node of the backbone is named after its module: "layer1.0.bn1" is what comes out of that batch norm, which is
    folded into the convolution before it. Further nodes of one module are numbered: "layer1.0.se", "layer1.0.se:2".
    """

    model: onnx.ModelProto
    backbone_nodes: frozenset[str]

    @property
    def outside(self) -> list[str]:
        """The names of the other nodes: they stay in float."""
        return [node.name for node in self.model.graph.node if node.name not in self.backbone_nodes]


def trace(network: InferenceNetwork, features: Sequence[str] = ()) -> Graph:
    """The network as ONNX, any batch size, parallel branches merged (RepVGG, MobileOne) and batch norms folded.

    `features`: modules of the backbone whose maps are outputs, too, after the embeddings. Raises RunError if torch
    cannot trace it.
    """
    merged = merge_branches(network)
    _replace_pools(merged)
    side = network.image_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)  # a batch of one would be taken for a constant
    try:
        with quiet(), torch.no_grad(), giving_maps(merged, features):
            program = torch.onnx.export(
                merged,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["embeddings", *(f"{_OUTPUT}{name}" for name in features)],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
            )
    except Exception as error:  # the exporter's own exception types are many
        raise RunError(f"torch cannot trace this backbone to ONNX: {_tell_root(error)}") from error
    assert program is not None
    model = program.model_proto
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise RunError(
            "torch cannot trace this backbone to ONNX for any number of images: its code takes their number for a "
            "constant, as len(x) and int(x.shape[0]) do; x.shape[0] and x.flatten(1) do not"
        )
    _name_outputs(model, features)
    nodes = _name_after_modules(model, list_backbones(merged))
    clean(model)
    return Graph(model, nodes)


def _tell_root(error: BaseException) -> str:
    """What an error of the exporter's goes back to, and the line of code, where it names one."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    places = re.findall(r'File "([^"]+)", line (\d+)', text)
    place = f" at {':'.join(places[-1])}" if places else ""
    first = text.splitlines()[0].rstrip(".") if text else "no reason given"
    return f"{type(error).__name__}{place}: {first}; code that branches on values, or was scripted, cannot be traced"


def merge_branches(network: InferenceNetwork) -> InferenceNetwork:
    """A copy, with its parallel branches merged (RepVGG, MobileOne) wherever that leaves what it computes as it is.

    timm calls any method named `fuse`, `reparameterize` or `switch_to_deploy`: a user's own module may mean another.
    """
    side = network.image_size
    noise = torch.randint(256, (1, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with contextlib.suppress(Exception), torch.no_grad():
        merged = reparameterize_model(network)
        if torch.allclose(network(noise), merged(noise), rtol=0, atol=1e-3):
            return cast("InferenceNetwork", merged)
    return copy.deepcopy(network)


def count_multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds per image of each layer with weights, by its name; not of those whose output's size is unknown."""
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    counts = {}
    for node in inferred.graph.node:
        its = shapes.get(node.output[0], [])[1:]  # the first is the batch
        if node.op_type in WEIGHTED and node.input[1] in weights and its and all(its):
            taps = weights[node.input[1]]
            outputs = math.prod(its)
            each = math.prod(taps[1:]) if node.op_type == "Conv" else math.prod(taps) // its[-1]
            counts[node.name] = outputs * each
    return counts


class _Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3), keepdim=True)


def _replace_pools(network: nn.Module) -> None:
    """Writes pooling to one pixel as a mean; of it, torch's exporter makes nine nodes, with a gather."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, _Mean())


def _name_outputs(model: onnx.ModelProto, features: Sequence[str]) -> None:
    """Gives the outputs their modules' names, and other values that the exporter has called so ("relu") another."""
    names = {name: f"{name}:value" for name in features} | {f"{_OUTPUT}{name}": name for name in features}
    graph = model.graph
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for values in (each for node in graph.node for each in (node.input, node.output)):
        values[:] = [names.get(name, name) for name in values]


def _name_after_modules(model: onnx.ModelProto, backbones: Collection[str]) -> frozenset[str]:
    """Renames the backbone's nodes by the module that each came from, which torch notes; returns their names.

    `backbones`: what is called so, by its name in the network.
    """
    counts: Counter[str] = Counter()
    names = []
    for node in model.graph.node:
        noted = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
        modules = [scope for scope in ast.literal_eval(noted) if _lies_within(scope, backbones)]
        if modules:
            module = modules[-1].removeprefix("backbone.")
            counts[module] += 1
            node.name = module if counts[module] == 1 else f"{module}:{counts[module]}"
            names.append(node.name)
    return frozenset(names)


def _lies_within(scope: str, modules: Collection[str]) -> bool:
    return any(f"{scope}.".startswith(f"{module}.") for module in modules)


def clean(model: onnx.ModelProto) -> None:
    """Takes out what the exporter notes of the machine: stack traces with paths, module names, doc strings."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what exporters and quantizers print and log from the user, short of errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # ONNX Runtime's quantizer calls logging.info, which gives a root logger without handlers one that prints.
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        prints = io.StringIO()  # torch prints graphs that it cannot trace
        with warnings.catch_warnings(), contextlib.redirect_stdout(prints), contextlib.redirect_stderr(prints):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.removeHandler(handler)
        logging.disable(level)
