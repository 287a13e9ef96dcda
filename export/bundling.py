"""From a run to a bundle: every variant written, judged against PyTorch, timed, and the default one chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.network import embed_pixels
from ..models.weights import WEIGHTS
from ..runtime.bundle import BUNDLE, FORMAT_VERSION, GOLDEN, MANIFEST
from ..runtime.cpus import available_cpus
from ..runtime.errors import FidelityError
from ..runtime.fidelity import GATES, OWN_COSINE, Fidelity, compare, failed_gates
from ..runtime.files import check_output, sha256, to_json, whole_folder
from ..runtime.onnxruntime_backend import OnnxRuntimeBackend
from ..runtime.openvino_backend import OpenVinoBackend
from ..runtime.timing import Timing, time_in_turn
from . import onnx_format, openvino_format
from .golden import FOLDER, GOLDEN_IMAGES, write_golden
from .source import FEW, Source, load_source

# A variant this much faster than a more faithful one is worth taking; less is noise.
LEAD = 1.10


@dataclass(frozen=True)
class ExportedVariant:
    """A variant as exported: its figures on images that calibration has not seen, and its speed here."""

    name: str
    precision: str
    engine: str
    size: int
    fidelity: Fidelity
    failures: tuple[str, ...]
    timing: Timing


@dataclass(frozen=True)
class Export:
    """What an export made. `default` is a variant's name; `calibration_images` set INT8's ranges."""

    variants: tuple[ExportedVariant, ...]
    default: str
    golden_images: int
    calibration_images: int


def export_run(
    run: Path,
    out: Path,
    int8: bool,
    overwrite: bool = False,
    note: Callable[[str], None] = lambda _: None,
    network: str = "online",
) -> Export:
    """Writes the bundle `out` from a run: whole, or not at all.

    `network`: "online", or "target" for its moving average. `note` is told what is being done. Raises RunError,
    OutputExistsError, and FidelityError if an FP32 variant is not what PyTorch computes.
    """
    check_output(out, overwrite, BUNDLE)
    source = load_source(run, network)
    with whole_folder(out, overwrite, BUNDLE) as folder:
        files = _write_variants(source, folder, int8, note)
        note("comparing each variant with PyTorch")
        variants, golden = _judge(source, folder, files)
        default = choose_default(variants)
        (folder / WEIGHTS).write_bytes(source.weights)
        write_golden(folder, source.judge[:GOLDEN_IMAGES], golden, source.spec.preprocessing)
        measured = {each.name: {"engine": each.engine, **asdict(each.timing)} for each in variants}
        (folder / "measured.json").write_text(to_json({"threads": available_cpus(), "ms_an_image": measured}))
        (folder / MANIFEST).write_text(to_json(_manifest(source, folder, files, variants, default)))
    return Export(variants, default, len(source.judge[:GOLDEN_IMAGES]), len(source.calibrate) if int8 else 0)


def choose_default(variants: tuple[ExportedVariant, ...]) -> str:
    """The fastest variant within its gates, unless a more faithful one is nearly as fast.

    Only .onnx files can be the default: every device install runs them, and "auto" means one variant on all devices.
    """
    passing = [each for each in variants if not each.failures and each.name.endswith(".onnx")]
    fastest = min(each.timing.median for each in passing)
    near = [each for each in passing if each.timing.median <= LEAD * fastest]
    return max(near, key=lambda each: each.fidelity.cosine_mean).name


def _write_variants(
    source: Source, folder: Path, int8: bool, note: Callable[[str], None]
) -> dict[str, tuple[str, ...]]:
    """Writes the model files; returns each variant's files by its name."""
    note("tracing the encoder")
    graph = onnx_format.trace(source.network)
    _write_onnx(source, graph.model, folder / "fp32.onnx")
    note("converting to OpenVINO")
    model = openvino_format.convert(folder / "fp32.onnx")
    openvino_format.save(model, folder / "fp32.xml", _essentials(source, "fp32.xml"), graph.backbone_nodes)
    files = {"fp32.onnx": ("fp32.onnx",), "fp32.xml": ("fp32.xml", "fp32.bin")}
    if int8:
        if len(source.calibrate) < FEW:
            note(f"only {len(source.calibrate)} images to calibrate with, better {FEW} or more: do not trust INT8 far")
        note(f"quantising for ONNX Runtime on {len(source.calibrate)} images")
        _write_onnx(source, onnx_format.quantise(graph, source.calibrate), folder / "int8.onnx")
        note(f"quantising for OpenVINO on {len(source.calibrate)} images")
        quantised = openvino_format.quantise(model, graph.backbone_nodes, source.calibrate)
        openvino_format.save(quantised, folder / "int8.xml", _essentials(source, "int8.xml"), graph.backbone_nodes)
        files |= {"int8.onnx": ("int8.onnx",), "int8.xml": ("int8.xml", "int8.bin")}
    return files


def _write_onnx(source: Source, model: Any, file: Path) -> None:
    file.write_bytes(onnx_format.serialise(model, _essentials(source, file.name)))


def _essentials(source: Source, variant: str) -> dict[str, Any]:
    """What a model file needs to work alone."""
    return {
        "format_version": FORMAT_VERSION,
        "variant": variant,
        "precision": variant.split(".")[0],
        "embedding_size": source.spec.embedding_size,
        "preprocessing": source.spec.preprocessing.to_json(),
        "encoder_sha256": sha256(source.weights),
    }


def _judge(
    source: Source, folder: Path, files: dict[str, tuple[str, ...]]
) -> tuple[tuple[ExportedVariant, ...], dict[str, NDArray[np.float32]]]:
    """Runs each variant on its engine; returns its figures, and the golden embeddings by "pytorch" and by variant."""
    engines = {"onnx": OnnxRuntimeBackend, "xml": OpenVinoBackend}
    backends = {
        name: engines[name.split(".")[1]].load(tuple((folder / part).read_bytes() for part in parts), available_cpus())
        for name, parts in files.items()
    }
    reference = embed_pixels(source.network, source.judge)
    vectors = {name: backend.run(source.judge) for name, backend in backends.items()}
    timings = time_in_turn([each.run for each in backends.values()], source.spec.preprocessing.image_size)
    variants = []
    for (name, backend), timing in zip(backends.items(), timings, strict=True):
        precision = name.split(".")[0]
        fidelity = compare(reference, vectors[name])
        failures = tuple(failed_gates(fidelity, GATES[precision]))
        if failures and precision == "fp32":
            raise FidelityError(f"{name} is not what PyTorch computes: {'; '.join(failures)}. Nothing was written")
        size = sum((folder / part).stat().st_size for part in files[name])
        variants.append(ExportedVariant(name, precision, backend.name, size, fidelity, failures, timing))
    golden = {"pytorch": reference, **vectors}
    return tuple(variants), {name: each[:GOLDEN_IMAGES] for name, each in golden.items()}


def _manifest(
    source: Source,
    folder: Path,
    files: dict[str, tuple[str, ...]],
    variants: tuple[ExportedVariant, ...],
    default: str,
) -> dict[str, Any]:
    listed = [WEIGHTS, GOLDEN, *(part for parts in files.values() for part in parts)]
    listed += [f"{FOLDER}/{file.name}" for file in (folder / FOLDER).iterdir()]
    contents = {name: (folder / name).read_bytes() for name in sorted(listed)}
    packages = ("byol-edge", "torch", "timm", "onnx", "onnxruntime", "openvino", "nncf")
    return {
        "format_version": FORMAT_VERSION,
        "network": {"backbone": source.spec.backbone, "stem": source.spec.stem},
        "embedding_size": source.spec.embedding_size,
        "preprocessing": source.spec.preprocessing.to_json(),
        "default": default,
        "variants": {
            each.name: {
                "precision": each.precision,
                "files": files[each.name],
                "passes": not each.failures,
                "own_cosine": OWN_COSINE[each.precision],
                "fidelity": each.fidelity.to_json(),
            }
            for each in variants
        },
        "files": {name: {"sha256": sha256(content), "size": len(content)} for name, content in contents.items()},
        "provenance": {
            "training": source.provenance,
            "export": {
                "versions": {name: version(name) for name in packages},
                "calibration": {"images": len(source.calibrate), "sha256": sha256(source.calibrate.tobytes())},
                "judged_on": len(source.judge),
            },
        },
    }
