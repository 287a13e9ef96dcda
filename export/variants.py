"""The model files of a bundle: each precision in each format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx

from ..evaluate.layers import IMAGES, compare_layers
from ..models.tracing import Graph, count_multiply_adds, trace
from ..runtime.backend import ModelBytes
from ..runtime.cpus import available_cpus
from ..runtime.fidelity import compare
from ..runtime.files import sha256
from ..runtime.model_file import FORMAT_READER, FORMAT_VERSION
from ..runtime.onnxruntime_backend import OnnxRuntimeBackend
from ..runtime.openvino_backend import OpenVinoBackend
from . import onnx_int8, tuning
from .config import ExportConfig
from .onnx_format import halve, serialize
from .search import Attempt, Ladder, climb
from .source import FEW, Source

Note = Callable[[str], None]
# A fine-tuned network as a graph: made when it is first asked for, the same for both formats.
Tuned = Callable[[], Graph]


@dataclass(frozen=True)
class Written:
    """`files`: each variant's, the model first. `ladders`: how each INT8 variant came to be."""

    files: dict[str, tuple[str, ...]]
    ladders: dict[str, Ladder]


def write_variants(source: Source, folder: Path, wanted: ExportConfig, note: Note) -> Written:
    """Writes the model files. Raises RunError where the network cannot be traced, or not quantized in any way."""
    note("tracing the encoder")
    graph = trace(source.network)
    if wanted.int8 and len(source.calibrate) < FEW:
        note(f"only {len(source.calibrate)} images to calibrate with, better {FEW} or more: do not trust INT8 far")
    tuned = cache(partial(_fine_tune, source, note)) if wanted.finetune else None
    files: dict[str, tuple[str, ...]] = {}
    ladders: dict[str, Ladder] = {}
    for name, write in (("onnx", _write_onnx), ("openvino", _write_openvino)):
        if name in wanted.formats:
            written = write(source, graph, tuned, folder, wanted, note)
            files |= written.files
            ladders |= written.ladders
    return Written(files, ladders)


def _write_onnx(
    source: Source, graph: Graph, tuned: Tuned | None, folder: Path, wanted: ExportConfig, note: Note
) -> Written:
    models = {"fp32.onnx": graph.model}
    ladders: dict[str, Ladder] = {}
    if wanted.fp16:
        models["fp16.onnx"] = halve(graph.model)
    if wanted.int8:
        attempts = partial(onnx_int8.attempts, calibrate=source.calibrate, target=wanted.target)
        note("quantizing for ONNX Runtime")
        models["int8.onnx"], ladders["int8.onnx"] = _climb(
            source, graph, tuned, attempts, OnnxRuntimeBackend.load, _onnx_contents, note
        )
    for name, model in models.items():
        (folder / name).write_bytes(serialize(model, _essentials(source, name)))
    return Written({name: (name,) for name in models}, ladders)


def _write_openvino(
    source: Source, graph: Graph, tuned: Tuned | None, folder: Path, wanted: ExportConfig, note: Note
) -> Written:
    try:
        from . import openvino_format, openvino_int8
    except ImportError as error:
        if wanted.formats == ("openvino",):
            raise
        note(f"OpenVINO's variants are left out: {error.name} is not installed (pip install 'byol-edge[export]')")
        return Written({}, {})
    note("converting to OpenVINO")
    model = openvino_format.convert(graph)
    models = {"fp32.xml": model}
    ladders: dict[str, Ladder] = {}
    if wanted.fp16:
        models["fp16.xml"] = model
    if wanted.int8:
        attempts = partial(openvino_int8.attempts, calibrate=source.calibrate, target=wanted.target)
        note("quantizing for OpenVINO")
        models["int8.xml"], ladders["int8.xml"] = _climb(
            source, graph, tuned, attempts, OpenVinoBackend.load, openvino_format.contents, note
        )
    for name, each in models.items():
        half = name == "fp16.xml"
        openvino_format.save(each, folder / name, _essentials(source, name), graph.backbone_nodes, half)
    return Written({name: (name, name.replace(".xml", ".bin")) for name in models}, ladders)


def _climb(
    source: Source,
    graph: Graph,
    tuned: Tuned | None,
    attempts: Callable[[Graph], Sequence[Sequence[Attempt[Any]]]],
    load: Callable[[ModelBytes, int], Any],
    contents: Callable[[Any], ModelBytes],
    note: Note,
) -> tuple[Any, Ladder]:
    counts = count_multiply_adds(graph.model)

    groups = attempts(graph)
    on_tuned = cache(lambda make: {each.name: each for group in attempts(make()) for each in group})

    def fine_tuned(attempt: Attempt[Any]) -> Attempt[Any]:
        return Attempt(f"{attempt.name}, fine-tuned", lambda in_float: on_tuned(tuned)[attempt.name].quantize(in_float))

    return climb(
        groups,
        lambda model: compare(source.reference, load(contents(model), available_cpus()).run(source.judge)),
        lambda model: compare_layers(graph.model, contents(model), source.calibrate[:IMAGES]),
        {layer: count / sum(counts.values()) for layer, count in counts.items()},
        [[fine_tuned(each) for each in group] for group in groups] if tuned else [],
        note,
    )


def _fine_tune(source: Source, note: Note) -> Graph:
    note("fine-tuning the network for INT8: up to 15 minutes (--no-finetune leaves it out)")
    return trace(tuning.fine_tune(source.network, source.calibrate, note))


def _onnx_contents(model: onnx.ModelProto) -> ModelBytes:
    return ModelBytes("onnx", (model.SerializeToString(),))


def _essentials(source: Source, variant: str) -> dict[str, Any]:
    """What a model file needs to work alone."""
    return {
        "format_version": FORMAT_VERSION,
        "format_reader": FORMAT_READER,
        "variant": variant,
        "precision": variant.split(".")[0],
        "embedding_size": source.spec.embedding_size,
        "preprocessing": source.spec.preprocessing.to_json(),
        "encoder_sha256": sha256(source.weights),
    }
