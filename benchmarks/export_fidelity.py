"""What INT8 keeps, and what it is worth: every variant of trained backbones beside the usual tools' defaults.

    pip install -e '.[all]'
    python benchmarks/export_fidelity.py CIFAR10 RUN... --out DIR

CIFAR10 holds train/<class>/ and test/<class>/; each RUN is one that edge_backbones.py left. Fidelity and 5-NN accuracy
are measured at the run's own size on all test images, speed on the same weights exported for 224 px, in turn with
PyTorch. The peers, `nncf.quantize` and `onnxruntime.quantization.quantize_static`, get the same images and their
defaults, on the network alone: with the last normalization quantized too, they would be handicapped. Speed comes last:
leave the machine alone then. What is finished is kept in DIR.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from byol_edge.evaluate.accuracy import bootstrap_interval, knn_hits
from byol_edge.export import onnx_format, openvino_format, openvino_int8
from byol_edge.export.config import ExportConfig, Source, load_source
from byol_edge.export.onnx_int8 import Reader
from byol_edge.models.network import embed_pixels
from byol_edge.models.weights import read_description
from byol_edge.runtime import Bundle, Encoder, compare
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from byol_edge.runtime.openvino_backend import OpenVinoBackend
from byol_edge.runtime.preprocessing import Pixels
from byol_edge.runtime.timing import time_in_turn
from cifar10 import Labeled, add_result, load_labeled, read_results
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_static

SPEED_SIZE = 224
OWN = {"fp32.onnx": "onnxruntime", "fp32.xml": "openvino", "fp16.onnx": "onnxruntime", "fp16.xml": "openvino"}
INT8 = (("int8.onnx", "onnxruntime"), ("int8.onnx", "openvino"), ("int8.xml", "openvino"))
WIDTHS = (9, 9, 9, 26, 7, 7, 9, 12)
VARIANTS = (*OWN.items(), *INT8)

Run = Callable[[Pixels], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = {read_description(run)[0].backbone: run for run in arguments.runs}
    for backbone, run in runs.items():
        if not find(arguments.out, backbone, "fidelity"):
            line = measure_fidelity(run, arguments.data / "test", arguments.out / f"{backbone}-own")
            add_result(arguments.out, {"backbone": backbone, "part": "fidelity", **line})
    for backbone, run in runs.items():
        if not find(arguments.out, backbone, "speed"):
            line = measure_speed(run, arguments.data / "train", arguments.out / f"{backbone}-{SPEED_SIZE}")
            add_result(arguments.out, {"backbone": backbone, "part": "speed", **line})
    for backbone in runs:
        print_table(find(arguments.out, backbone, "fidelity"), find(arguments.out, backbone, "speed"))


def find(out: Path, backbone: str, part: str) -> dict[str, Any]:
    """What was measured already; empty if nothing was."""
    return next((line for line in read_results(out) if (line["backbone"], line["part"]) == (backbone, part)), {})


def measure_fidelity(run: Path, test: Path, bundle: Path) -> dict[str, Any]:
    """Cosines, overlap and 5-NN accuracy of every variant and peer on the test images."""
    seconds = export_by_command(run, bundle)
    source = load_source(run, ExportConfig())
    images = load_labeled(test, source.spec.preprocessing)
    reference = embed_pixels(source.network, images.pixels)
    hits = knn_hits(reference, images.classes)
    ways = {f"{name} {engine}": Encoder(bundle, name, engine).run for name, engine in VARIANTS} | peers(source)
    rows = {name: describe(way, reference, hits, images) for name, way in ways.items()}
    ladders = Bundle.open(bundle).manifest["provenance"]["export"]["ladders"]
    side = source.spec.preprocessing.image_size
    return {"knn": hits.mean(), "seconds": seconds, "size": side, "ladders": ladders, "rows": rows}


def describe(way: Run, reference: NDArray[np.float32], hits: NDArray[np.float64], images: Labeled) -> dict[str, Any]:
    vectors = np.concatenate([way(images.pixels[start : start + 32]) for start in range(0, len(reference), 32)])
    fidelity = compare(reference, vectors)
    change = bootstrap_interval(knn_hits(vectors, images.classes) - hits)
    return {
        "cosine": fidelity.cosine_mean,
        "p01": fidelity.cosine_p01,
        "overlap": fidelity.overlap,
        "change": [change.mean, change.lower, change.upper],
    }


def measure_speed(run: Path, images: Path, bundle: Path) -> dict[str, Any]:
    """Milliseconds an image at batch 1 and 224 px, in turn with PyTorch eager, sizes, and seconds to export."""
    large = bundle.with_name(f"{bundle.name}-run")
    shutil.rmtree(large, ignore_errors=True)
    shutil.copytree(run, large)
    description = json.loads((large / "encoder.json").read_text())
    description["preprocessing"]["image_size"] = SPEED_SIZE
    (large / "encoder.json").write_text(json.dumps(description))
    (large / "calibration.npz").unlink()
    seconds = export_by_command(large, bundle, "--calibration", images, "--no-finetune")
    source = load_source(large, ExportConfig(calibration=images))
    ways: dict[str, Run] = {"PyTorch": lambda pixels: embed_pixels(source.network, pixels)}
    ways |= {f"{name} {engine}": Encoder(bundle, name, engine).run for name, engine in VARIANTS} | peers(source)
    timings = time_in_turn(list(ways.values()), SPEED_SIZE, seconds=3.0)
    rows = {
        name: {"ms": timing.median, "lower": timing.lower, "upper": timing.upper}
        for name, timing in zip(ways, timings, strict=True)
    }
    opened = Bundle.open(bundle)
    return {
        "seconds": seconds,
        "pytorch_ms": rows.pop("PyTorch")["ms"],
        "sizes": {name: opened.size(variant) for name, variant in opened.variants.items()},
        "default": opened.default.name,
        "ladders": opened.manifest["provenance"]["export"]["ladders"],
        "cpus": available_cpus(),
        "rows": rows,
    }


def export_by_command(run: Path, bundle: Path, *options: object) -> float:
    command = [sys.executable, "-m", "byol_edge.cli.main", "export", run, "--int8", "--fp16", "--out", bundle]
    start = time.monotonic()
    subprocess.run([str(part) for part in (*command, "--overwrite", *options)], check=True, capture_output=True)
    return time.monotonic() - start


def peers(source: Source) -> dict[str, Run]:
    """The usual tools with their defaults, the steps before and after the network left in float."""
    graph = onnx_format.trace(source.network)
    with tempfile.TemporaryDirectory() as folder, onnx_format.quiet():
        file = Path(folder, "int8.onnx")
        quantize_static(copy.deepcopy(graph.model), file, Reader(source.calibrate), nodes_to_exclude=graph.outside)
        by_onnxruntime = OnnxRuntimeBackend.load((file.read_bytes(),), available_cpus())
    model = openvino_format.convert(graph)
    ignored = openvino_int8.nncf.IgnoredScope(names=openvino_int8.outside_backbone(model, graph.backbone_nodes))
    images = openvino_int8.nncf.Dataset([image[None] for image in source.calibrate])
    with onnx_format.quiet():
        quantized = openvino_int8.nncf.quantize(model, images, ignored_scope=ignored)
    by_nncf = OpenVinoBackend.load(openvino_format.contents(quantized), available_cpus())
    return {"quantize_static": by_onnxruntime.run, "nncf.quantize": by_nncf.run}


def print_table(fidelity: dict[str, Any], speed: dict[str, Any]) -> None:
    print(
        f"\n{fidelity['backbone']}: 5-NN {fidelity['knn']:.3f}; exported at {fidelity['size']} px in "
        f"{fidelity['seconds']:.0f} s, at {SPEED_SIZE} px in {speed['seconds']:.0f} s; PyTorch eager "
        f"{speed['pytorch_ms']:.2f} ms; default at {SPEED_SIZE} px {speed['default']}"
    )
    for name, ladder in fidelity["ladders"].items():
        kept = next(rung for rung in ladder["tried"] if rung["name"] == ladder["kept"])
        print(f"  {name}: {ladder['kept']}, {kept['float_share']:.0%} in float, of {len(ladder['tried'])} tried")
    columns = ("cosine", "1st pct", "overlap", "5-NN change", "MB", "ms", "to FP32", "to PyTorch")
    print(f"  {'':<24}" + "".join(f"{name:>{width}}" for name, width in zip(columns, WIDTHS, strict=True)))
    for name, row in fidelity["rows"].items():
        variant, _, engine = name.partition(" ")
        by_onnxruntime = engine == "onnxruntime" or name == "quantize_static"
        in_float = speed["rows"]["fp32.onnx onnxruntime" if by_onnxruntime else "fp32.xml openvino"]["ms"]
        ms = speed["rows"][name]["ms"]
        mean, lower, upper = row["change"]
        values = (
            f"{row['cosine']:.5f}",
            f"{row['p01']:.5f}",
            f"{row['overlap']:.3f}",
            f"{mean:+.4f} ({lower:+.3f}…{upper:+.3f})",
            f"{speed['sizes'][variant] / 1e6:.1f}" if variant in speed["sizes"] else "–",
            f"{ms:.2f}",
            f"{in_float / ms:.2f}×",
            f"{speed['pytorch_ms'] / ms:.2f}×",
        )
        print(f"  {name:<24}" + "".join(f"{value:>{width}}" for value, width in zip(values, WIDTHS, strict=True)))


if __name__ == "__main__":
    main()
