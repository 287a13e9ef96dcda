"""What INT8 keeps of networks that were really trained: EfficientNet-Lite0 to 2 with ImageNet's weights.

    pip install -e '.[all]'
    python benchmarks/pretrained_fidelity.py PHOTOGRAPHS --out DIR

PHOTOGRAPHS holds train/ and test/<class>/. Each network is exported twice by `byol-edge export --int8`: calibrated on
300 images of train/, and without images. Cosine, overlap and 5-NN accuracy (leave one out) are measured on test/, at
the network's own image size, beside the usual tools' defaults on the same 300 images; cosine and overlap of the judged
images are export's own, on 212 others of train/. Speed is measured at batch 1, all of a network in turn; leave the
machine alone meanwhile. What is finished is kept in DIR: the same command goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from byol_edge.evaluate.knn import knn_hits
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.models.network import embed_pixels
from byol_edge.models.starts import PACKAGE, PACKAGES
from byol_edge.runtime import Bundle, Encoder
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.timing import time_in_turn
from cifar10 import add_result, load_labeled, read_results
from export_fidelity import FP32, Contender, describe, make_peers, searches

CALIBRATED, QUICK = "300 photographs", "no photographs"
# Each variant with the engines that it is measured on.
VARIANTS = (
    ("fp32.onnx", "onnxruntime"),
    ("fp32.xml", "openvino"),
    ("int8.onnx", "onnxruntime"),
    ("int8.onnx", "openvino"),
    ("int8.xml", "openvino"),
)
INT8 = [variant for variant in VARIANTS if variant[0].startswith("int8")]
COLUMNS = ("cosine", "1st percentile", "overlap@10", "5-NN change, 95%", "MB", "ms (quartiles)", "vs. FP32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        for measure in (export, measure_fidelity, measure_speed):
            if not find(arguments.out, name, measure.__name__):
                line = measure(name, arguments.photographs, arguments.out)
                add_result(arguments.out, {"network": name, "part": measure.__name__, **line})
        print_table(name, arguments.out)


def find(out: Path, name: str, part: str) -> dict[str, Any]:
    """What was measured already; empty if nothing was."""
    return next((line for line in read_results(out) if (line["network"], line["part"]) == (name, part)), {})


def export(name: str, photographs: Path, out: Path) -> dict[str, Any]:
    """Both bundles, with the seconds that each took."""
    found = {}
    for kind, options in ((CALIBRATED, ["--calibration", photographs / "train"]), (QUICK, [])):
        bundle = find_bundle(out, name, kind)
        command = [sys.executable, "-m", "byol_edge", "export", f"{PACKAGE}{name}", "--int8", "--out", bundle]
        start = time.monotonic()
        subprocess.run([str(part) for part in (*command, "--overwrite", *options)], check=True, capture_output=True)
        seconds = time.monotonic() - start
        manifest = Bundle.open(bundle).manifest
        judged = {name: each["fidelity"] for name, each in manifest["variants"].items()}
        found[kind] = {
            "seconds": seconds,
            "default": manifest["default"],
            "searches": searches(bundle),
            "judged_on": manifest["provenance"]["export"]["judged_on"],
            "judged": {name: [each["cosine_mean"], each["overlap"]] for name, each in judged.items()},
        }
    return found


def find_bundle(out: Path, name: str, kind: str) -> Path:
    return out / f"{name}-{kind.replace(' ', '-')}"


def measure_fidelity(name: str, photographs: Path, out: Path) -> dict[str, Any]:
    """Cosines, overlap and 5-NN accuracy of every variant and peer on the labeled photographs."""
    source = load_source(f"{PACKAGE}{name}", ExportConfig(calibration=photographs / "train"))
    images = load_labeled(photographs / "test", source.spec.preprocessing)
    reference = embed_pixels(source.network, images.pixels)
    hits = knn_hits(reference, images.classes)
    contenders = (*load_variants(out, name), *make_peers(source))
    rows = {each.name: {"engine": each.engine, **describe(each.embed, reference, hits, images)} for each in contenders}
    return {"images": len(reference), "size": source.spec.preprocessing.image_size, "knn": hits.mean(), "rows": rows}


def measure_speed(name: str, photographs: Path, out: Path) -> dict[str, Any]:
    """Milliseconds per image at batch 1, in turn, and sizes in bytes. Both bundles' INT8 files are of one form."""
    source = load_source(f"{PACKAGE}{name}", ExportConfig(calibration=photographs / "train"))
    contenders = [*load_variants(out, name), *make_peers(source)]
    side = source.spec.preprocessing.image_size
    timings = time_in_turn([each.embed for each in contenders], side, seconds=3.0)
    rows = {
        each.name: {"ms": timing.median, "lower": timing.lower, "upper": timing.upper, "least": timing.least}
        for each, timing in zip(contenders, timings, strict=True)
    }
    opened = {kind: Bundle.open(find_bundle(out, name, kind)) for kind in (CALIBRATED, QUICK)}
    sizes = {
        kind: {name: each.size(variant) for name, variant in each.variants.items()} for kind, each in opened.items()
    }
    return {"cpus": available_cpus(), "sizes": sizes, "rows": rows}


def load_variants(out: Path, name: str) -> list[Contender]:
    """Those that 300 photographs gave, and the INT8 ones of no photographs."""
    return [
        Contender(
            f"{variant} {engine}" + (f", {QUICK}" if kind == QUICK else ""),
            engine,
            Encoder(find_bundle(out, name, kind), variant, engine).run,
            variant,
        )
        for kind, variants in ((CALIBRATED, VARIANTS), (QUICK, INT8))
        for variant, engine in variants
    ]


def print_table(name: str, out: Path) -> None:
    """In Markdown, as docs/export.md has it."""
    exported, fidelity, speed = (find(out, name, each.__name__) for each in (export, measure_fidelity, measure_speed))
    print(f"\n### {name}, {fidelity['size']} px\n\n5-NN accuracy {fidelity['knn']:.3f}.\n")
    for kind in (CALIBRATED, QUICK):
        each = exported[kind]
        print(f"- {kind}: exported in {each['seconds']:.0f} s; the default is {each['default']}.")
        for variant, search in each["searches"].items():
            kept = next(trial for trial in search["tried"] if trial["name"] == search["kept"])
            cosine, overlap = each["judged"][variant]
            print(
                f"  {variant}: {search['kept']}; {kept['float_share']:.0%} in float, {len(search['tried'])} tried; "
                f"{cosine:.4f} / {overlap:.3f} on {each['judged_on']} judged images"
            )
    print(f"\n| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for contender, row in fidelity["rows"].items():
        timing = speed["rows"][contender]
        kind = QUICK if contender.endswith(QUICK) else CALIBRATED
        size = speed["sizes"][kind].get(contender.split()[0])
        mean, lower, upper = (100 * value for value in row["change"])
        values = (
            f"{row['cosine']:.5f}",
            f"{row['p01']:.4f}",
            f"{row['overlap']:.3f}",
            f"{mean:+.2f} ({lower:+.2f}…{upper:+.2f})",
            f"{size / 1e6:.1f}" if size else "–",
            f"{timing['ms']:.2f} ({timing['lower']:.2f}–{timing['upper']:.2f})",
            f"{speed['rows'][FP32[row['engine']]]['ms'] / timing['ms']:.2f}×",
        )
        print(f"| {contender} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
