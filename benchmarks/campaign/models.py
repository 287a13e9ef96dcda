"""Fuzzed model files, their hashes put right so that our checks or an engine see them: one line, or vectors."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import onnx
from onnx import TensorProto, helper

from .bench import ENGINES, OPENVINO, Bench
from .commands import Limits, find_fault, run_command
from .hostile import mutate_bytes
from .manifests import put_hash_right
from .trials import Outcome
from .written import check_vectors

TRIALS = 300
LIMITS = Limits(30, 4_000)
NUMBERS = (
    "-1",
    "0",
    "1",
    "7",
    "65536",
    "2147483647",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "1e9",
)
OPERATORS = (
    "Loop", "If", "Scan", "Conv", "Gemm", "MatMul", "Reshape", "Gather", "Resize", "Expand", "Tile", "Pad", "Slice",
    "Cast", "Concat", "Range", "NonZero", "Flatten", "Add", "QLinearConv", "DequantizeLinear", "ConstantOfShape",
    "NoSuchOperator",
)  # fmt: skip


def try_models(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    """Each file on every engine that takes it; the first fault is told."""
    for trial in trials:
        draw = Random(f"model {trial}")
        precision = draw.choice(("fp32", "int8"))
        if OPENVINO and trial % 3 == 2:
            variant, engines, change = f"{precision}.xml", ("openvino",), _spoil_pair
        else:
            variant, engines, change = f"{precision}.onnx", ENGINES, draw.choice((_spoil_onnx, _spoil_graph))
        bundle = folder / "bundle"
        shutil.copytree(bench.bundle, bundle)
        what = change(bundle, variant, draw)
        command = ("self-test", "embed-few")[trial // 3 % 2]
        ends, failures = [], []
        for engine in engines:
            label, failure = _try_engine(bench, bundle, variant, engine, command)
            ends.append(label)
            if failure:
                failures.append(f"on {engine}: {failure}")
        yield Outcome(trial, f"{command} of {variant}: {what}", ", ".join(sorted({*ends})), "; ".join(failures))


def _try_engine(bench: Bench, bundle: Path, variant: str, engine: str, command: str) -> tuple[str, str]:
    """How the command ended, and what is wrong with that."""
    out = bundle.with_name(f"{engine}.npz")
    arguments = [bundle if each == bench.bundle else each for each in bench.command(command, out)]
    ended = run_command(*arguments, "--variant", variant, "--backend", engine, limits=LIMITS)
    failure = find_fault(ended, codes=(0, 1))
    if command == "embed-few" and ended.code == 0:
        # A flipped weight is another network, which nobody can tell: only the form of the vectors is promised.
        failure = failure or check_vectors(out, 12)
    elif out.exists():
        failure = failure or "it failed, and wrote the file nevertheless"
    return ended.label, failure


def _spoil_onnx(bundle: Path, variant: str, draw: Random) -> str:
    what, content = mutate_bytes((bundle / variant).read_bytes(), draw)
    (bundle / variant).write_bytes(content)
    put_hash_right(bundle, variant)
    return what


def _spoil_pair(bundle: Path, variant: str, draw: Random) -> str:
    """An .xml file as text, where half of its numbers lie, or the bytes of one of the two files."""
    weights = Path(variant).with_suffix(".bin").name
    name = draw.choice((variant, variant, variant, weights))
    file = bundle / name
    if name == weights or draw.random() < 0.2:
        what, content = mutate_bytes(file.read_bytes(), draw)
    else:
        what, text = _mutate_xml(file.read_text(), draw)
        content = text.encode()
    file.write_bytes(content)
    put_hash_right(bundle, name)
    return f"{name} {what}"


def _mutate_xml(text: str, draw: Random) -> tuple[str, str]:
    """One value, dimension, layer or edge changed."""
    way = draw.choice(["value", "value", "value", "dim", "layer gone", "edge", "layer twice", "type", "entities"])
    if way == "entities":
        bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
        return way, text.replace("<net ", f'<!DOCTYPE x [<!ENTITY e0 "lol">{bomb}]>\n<net ', 1).replace(
            "<dim>", "<dim>&e9;", 1
        )
    pattern = {
        "value": r'(?<=[\w]=")[^"]*(?=")',
        "dim": r"(?<=<dim>)[^<]*",
        "layer gone": r"<layer .*?</layer>",
        "layer twice": r"<layer .*?</layer>",
        "edge": r"<edge [^>]*>",
        "type": r'(?<= type=")[^"]*(?=")',
    }[way]
    found = draw.choice(list(re.finditer(pattern, text, re.DOTALL)))
    values = (*NUMBERS, "", "x" * 5000, "Loop", "If", "TensorIterator", "f64", "string", "../../x", "nan", "-1,-1")
    new = {"layer gone": "", "layer twice": found[0] * 2, "edge": draw.choice(("", found[0] * 2))}.get(way)
    new = draw.choice((*values, "ReadValue", "Custom", "Const", "Reshape")) if new is None else new
    return f"{way} at {found.start()}: {found[0][:40]!r} = {new[:30]!r}", text[: found.start()] + new + text[
        found.end() :
    ]


def _spoil_graph(bundle: Path, variant: str, draw: Random) -> str:
    """A model that parses, and is wrong."""
    model = onnx.load(bundle / variant)
    change = draw.choice(
        [_change_attribute, _change_operator, _rewire, _change_dims, _change_type, _move_out, _add_loop, _grow, _rename]
    )
    what = change(model, draw)
    (bundle / variant).write_bytes(model.SerializeToString())
    put_hash_right(bundle, variant)
    return f"{change.__name__[1:]} {what}"


def _change_attribute(model: onnx.ModelProto, draw: Random) -> str:
    node = draw.choice([each for each in model.graph.node if each.attribute])
    attribute = draw.choice(list(node.attribute))
    number = draw.choice([int(float(each)) if "e" in each else int(each) for each in NUMBERS])
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = number
    else:
        attribute.i = number
    return f"{attribute.name} of {node.op_type} = {number}"


def _change_operator(model: onnx.ModelProto, draw: Random) -> str:
    node = draw.choice(list(model.graph.node))
    old, node.op_type = node.op_type, draw.choice(OPERATORS)
    return f"{old} to {node.op_type}"


def _rewire(model: onnx.ModelProto, draw: Random) -> str:
    """A cycle, most of the time."""
    node = draw.choice([each for each in model.graph.node if each.input])
    place = draw.randrange(len(node.input))
    node.input[place] = draw.choice([*(out for each in model.graph.node for out in each.output), "", "gone"])
    return f"input {place} of {node.op_type} to {node.input[place]!r}"


def _change_dims(model: onnx.ModelProto, draw: Random) -> str:
    tensor = draw.choice([each for each in model.graph.initializer if each.dims])
    number = draw.choice((-1, 0, 1, 7, 2**31, 2**40, 2**62, -(2**63)))
    tensor.dims[draw.randrange(len(tensor.dims))] = number
    return f"of {tensor.name}: {list(tensor.dims)}"


def _change_type(model: onnx.ModelProto, draw: Random) -> str:
    tensor = draw.choice(list(model.graph.initializer))
    tensor.data_type = draw.choice((0, 1, 2, 3, 6, 7, 8, 10, 11, 16, 17, 22, 99))
    return f"of {tensor.name} = {tensor.data_type}"


def _move_out(model: onnx.ModelProto, draw: Random) -> str:
    """Weights in another file."""
    tensor = draw.choice(list(model.graph.initializer))
    where = draw.choice(("/etc/passwd", "../encoder.safetensors", "encoder.safetensors", "/dev/zero", ""))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in (("location", where), ("offset", draw.choice(NUMBERS)), ("length", draw.choice(NUMBERS))):
        tensor.external_data.add(key=key, value=value)
    return f"{tensor.name} to {where!r}"


def _add_loop(model: onnx.ModelProto, draw: Random) -> str:
    """One that never ends, before the output."""
    flag = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Abs", ["state"], ["next"])],
        "body",
        [count, flag, state],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("next", 1, None)],
    )
    last = next(each for each in model.graph.node if "embeddings" in each.output)
    last.output[list(last.output).index("embeddings")] = "before_the_loop"
    true = helper.make_node("Constant", [], ["true"], value=helper.make_tensor("true", TensorProto.BOOL, [], [True]))
    outer = "" if draw.random() < 0.5 else "turns"
    if outer:
        model.graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [2**62]))
    loop = helper.make_node("Loop", [outer, "true", "before_the_loop"], ["embeddings"], body=body)
    model.graph.node.extend([true, loop])
    return f"with {outer or 'no'} end"


def _grow(model: onnx.ModelProto, draw: Random) -> str:
    """A few bytes that ask for terabytes, or gigabytes."""
    size = draw.choice((2**28, 2**31, 2**34, 2**40))
    model.graph.initializer.append(helper.make_tensor("sizes", TensorProto.INT64, [1], [size]))
    grown = helper.make_node("ConstantOfShape", ["sizes"], ["grown"])
    total = helper.make_node("ReduceMax", ["grown"], ["top"], keepdims=0)
    last = next(each for each in model.graph.node if "embeddings" in each.output)
    last.output[list(last.output).index("embeddings")] = "before"
    model.graph.node.extend([grown, total, helper.make_node("Add", ["before", "top"], ["embeddings"])])
    return f"to {size} numbers"


def _rename(model: onnx.ModelProto, draw: Random) -> str:
    """Inputs, outputs, opset and metadata that are not what they were."""
    number = draw.choice([int(float(each)) if "e" in each else int(each) for each in NUMBERS])
    changes: dict[str, Callable[[], object]] = {
        "input": lambda: setattr(model.graph.input[0], "name", "pictures"),
        "output": lambda: setattr(model.graph.output[0], "name", "x\x1b[31m"),
        "version": lambda: setattr(model.opset_import[0], "version", number),
        "domain": lambda: setattr(model.opset_import[0], "domain", "nobody's"),
        "ir": lambda: setattr(model, "ir_version", number),
        "metadata": lambda: setattr(model.metadata_props[0], "value", "[" * 100_000),
        "kind": lambda: setattr(model.graph.input[0].type.tensor_type, "elem_type", draw.choice((0, 1, 7, 8, 99))),
        "rank": lambda: model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=3),
        "node's domain": lambda: setattr(model.graph.node[0], "domain", "com.microsoft"),
        "no nodes": lambda: model.graph.ClearField("node"),
        "twice": lambda: model.graph.node.extend(list(model.graph.node)),
    }
    name = draw.choice(list(changes))
    changes[name]()
    return name
