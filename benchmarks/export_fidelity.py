"""What INT8 keeps, and what it is worth: every variant of trained backbones beside the usual tools' defaults.

    pip install -e '.[all]'
    python benchmarks/export_fidelity.py CIFAR10 RUN... --out DIR

CIFAR10 holds train/<class>/ and test/<class>/; each RUN is one that edge_backbones.py left. Fidelity and 5-NN accuracy
are measured at the run's own size on all test images, speed on the same weights exported for 224 px, in turn with
PyTorch. The peers, `nncf.quantize` and `onnxruntime.quantization.quantize_static`, get the same images and their
defaults, on the network alone: with the last normalisation quantised too, they would be handicapped. What is finished
is kept in DIR.
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
from byol_edge.export import onnx_format, openvino_format, openvino_int8
from byol_edge.export.accuracy import bootstrap_interval, knn_hits
from byol_edge.export.onnx_int8 import Reader
from byol_edge.export.source import Source, Wanted, load_source
from byol_edge.models.network import embed_pixels
from byol_edge.models.weights import read_description
from byol_edge.runtime import Bundle, Encoder, compare
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from byol_edge.runtime.openvino_backend import OpenVinoBackend
from byol_edge.runtime.preprocessing import Pixels
from byol_edge.runtime.timing import time_in_turn
from cifar10 import Labelled, add_result, load_labelled, read_results
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_static

SPEED_SIZE = 224
OWN = {"fp32.onnx": "onnxruntime", "fp32.xml": "openvino", "fp16.onnx": "onnxruntime", "fp16.xml": "openvino"}
INT8 = (("int8.onnx", "onnxruntime"), ("int8.onnx", "openvino"), ("int8.xml", "openvino"))
VARIANTS = (*OWN.items(), *INT8)

Run = Callable[[Pixels], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = read_results(arguments.out)
    for run in arguments.runs:
        backbone = read_description(run)[0].backbone
        if not any(line["backbone"] == backbone for line in done):
            small = measure_fidelity(run, arguments.data / "test", arguments.out / f"{backbone}-own")
            large = measure_speed(run, arguments.data / "train", arguments.out / f"{backbone}-{SPEED_SIZE}")
            rows = {name: {**small["rows"][name], **large["rows"][name]} for name in small["rows"]}
            line = {"backbone": backbone, **small["about"], **large["about"], "rows": rows}
            done = add_result(arguments.out, line)
    print_table(done)


def measure_fidelity(run: Path, test: Path, bundle: Path) -> dict[str, Any]:
    """Cosines, overlap and 5-NN accuracy of every variant and peer on the test images."""
    seconds = export_by_command(run, bundle)
    source = load_source(run, Wanted())
    images = load_labelled(test, source.spec.preprocessing)
    reference = embed_pixels(source.network, images.pixels)
    hits = knn_hits(reference, images.classes)
    ways = {f"{name} {engine}": Encoder(bundle, name, engine).run for name, engine in VARIANTS} | peers(source)
    rows = {name: describe(way, reference, hits, images) for name, way in ways.items()}
    ladders = Bundle.open(bundle).manifest["provenance"]["export"]["ladders"]
    return {
        "about": {
            "knn": hits.mean(),
            "own_seconds": seconds,
            "size": source.spec.preprocessing.image_size,
            "ladders": ladders,
        },
        "rows": rows,
    }


def describe(way: Run, reference: NDArray[np.float32], hits: NDArray[np.float64], images: Labelled) -> dict[str, Any]:
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
    source = load_source(large, Wanted(calibration=images))
    ways: dict[str, Run] = {"PyTorch": lambda pixels: embed_pixels(source.network, pixels)}
    ways |= {f"{name} {engine}": Encoder(bundle, name, engine).run for name, engine in VARIANTS} | peers(source)
    timings = time_in_turn(list(ways.values()), SPEED_SIZE, seconds=3.0)
    rows = {
        name: {"ms": timing.median, "lower": timing.lower, "upper": timing.upper}
        for name, timing in zip(ways, timings, strict=True)
    }
    opened = Bundle.open(bundle)
    about = {
        "export_seconds": seconds,
        "pytorch_ms": rows.pop("PyTorch")["ms"],
        "sizes": {name: opened.size(variant) for name, variant in opened.variants.items()},
        "default": opened.default.name,
        "ladders_at_224": opened.manifest["provenance"]["export"]["ladders"],
        "cpus": available_cpus(),
    }
    return {"about": about, "rows": rows}


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
        quantised = openvino_int8.nncf.quantize(model, images, ignored_scope=ignored)
    by_nncf = OpenVinoBackend.load(openvino_format.contents(quantised), available_cpus())
    return {"quantize_static": by_onnxruntime.run, "nncf.quantize": by_nncf.run}


def print_table(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        print(
            f"\n{line['backbone']}: 5-NN {line['knn']:.3f}; PyTorch eager {line['pytorch_ms']:.2f} ms; exported at "
            f"{line['size']} px in {line['own_seconds']:.0f} s, at {SPEED_SIZE} px in {line['export_seconds']:.0f} s; "
            f"default there {line['default']}"
        )
        for name, ladder in line["ladders"].items():
            kept = next(rung for rung in ladder["tried"] if rung["name"] == ladder["kept"])
            print(f"  {name}: {ladder['kept']}, {kept['float_share']:.0%} in float, of {len(ladder['tried'])} tried")
        print(f"  {'':<24}{'cosine':>9}{'1st pct':>9}{'overlap':>9}{'5-NN change':>26}{'MB':>7}{'ms':>7}{'to FP32':>9}"
              f"{'to PyTorch':>12}")  # fmt: skip
        for name, row in line["rows"].items():
            variant, _, engine = name.partition(" ")
            kind = "onnx" if engine == "onnxruntime" or name == "quantize_static" else "xml"
            float_ms = line["rows"][f"fp32.{kind} {'onnxruntime' if kind == 'onnx' else 'openvino'}"]["ms"]
            size = f"{line['sizes'][variant] / 1e6:.1f}" if variant in line["sizes"] else "–"
            mean, lower, upper = row["change"]
            print(
                f"  {name:<24}{row['cosine']:>9.5f}{row['p01']:>9.5f}{row['overlap']:>9.3f}"
                f"{f'{mean:+.4f} ({lower:+.3f}…{upper:+.3f})':>26}{size:>7}{row['ms']:>7.2f}"
                f"{float_ms / row['ms']:>8.2f}×{line['pytorch_ms'] / row['ms']:>11.2f}×"
            )


if __name__ == "__main__":
    main()
