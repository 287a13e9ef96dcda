"""Images per second of BYOL, beside lightly's own loop: the same images, networks and batches, in turn.

    pip install -e '.[all,interop]'
    python benchmarks/train_speed.py IMAGES --out DIR

IMAGES is a folder of images. Each round trains every network for three epochs, by `byol-edge train` in the precision
that it chooses, with a cache as well, and in FP32, and by lightly's modules, transforms and data set. The second epoch
counts: in the first one workers start, and in the last one they have less to do. Views are those of small images,
without blur, in all of them. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median

import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.runtime import find_images
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.run import Run
from byol_edge.train.config import TrainConfig
from byol_edge.train.precision import choose_precision
from byol_edge.train.settings import resolve
from cifar10 import link_images, train_by_command
from train_accuracy import load_as_lightly, run_lightly

EPOCHS, COUNTS = 3, 2
OURS = ("byol-edge", "with a cache", "in FP32")
TRAINERS = (*OURS, "lightly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbones", default="resnet18,mobilenetv3_small_100,mobilenetv4_conv_small")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--most", type=int, default=1024, help="images, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lightly", help=argparse.SUPPRESS)  # the backbone; how this script calls itself
    arguments = parser.parse_args()
    if arguments.lightly:
        print(time_lightly(arguments.images, arguments.lightly, arguments))
        return
    images = link_images(arguments.images, arguments.out / "images", arguments.most)
    backbones = arguments.backbones.split(",")
    speeds: dict[tuple[str, str], list[float]] = {}
    for turn in range(arguments.rounds):
        for backbone in backbones:
            # Each trainer first in every other round: a machine may grow slower, or faster.
            for trainer in TRAINERS if turn % 2 == 0 else TRAINERS[::-1]:
                speed = measure(trainer, images, backbone, arguments)
                speeds.setdefault((backbone, trainer), []).append(speed)
                print(f"{backbone}, {trainer}: {speed:.0f} images/s", flush=True)
    print_table(speeds, backbones, arguments)


def measure(trainer: str, images: Path, backbone: str, arguments: argparse.Namespace) -> float:
    size = ("--image-size", arguments.image_size, "--batch-size", arguments.batch_size)
    if trainer == "lightly":
        command = [sys.executable, __file__, images, "--out", "-", "--lightly", backbone, *size]
        return float(subprocess.run([str(each) for each in command], check=True, capture_output=True, text=True).stdout)
    precision = "fp32" if trainer == "in FP32" else find_precision(backbone, arguments.image_size)
    own = ("--precision", precision, *(("--cache", arguments.out / "cache") if trainer == "with a cache" else ()))
    run = arguments.out / "run"
    options = ("--backbone", backbone, "--stem", "standard", "--recipe", "small", "--epochs", EPOCHS)
    train_by_command(images, run, *size, *options, *own)
    return Run(run).read_metrics()[COUNTS].images_per_s or 0.0


@cache
def find_precision(backbone: str, side: int) -> str:
    """What a longer run would choose."""
    return choose_precision(resolve(TrainConfig(backbone, side), images=5000), torch.device("cpu"))


def time_lightly(images: Path, backbone: str, arguments: argparse.Namespace) -> float:
    side, batch_size = arguments.image_size, arguments.batch_size
    loader = load_as_lightly(images, side, batch_size)
    seconds = list(run_lightly(build_backbone(backbone, side, "standard"), loader, side, EPOCHS))
    return len(find_images(images)) // batch_size * batch_size / seconds[COUNTS - 1]


def print_table(
    speeds: dict[tuple[str, str], list[float]], backbones: list[str], arguments: argparse.Namespace
) -> None:
    what = f"{arguments.image_size} px, batches of {arguments.batch_size}, {available_cpus()} CPUs"
    print(f"\nimages/s, {what}: median (lowest to highest) of {arguments.rounds} rounds\n")
    print(f"| backbone | {' | '.join(TRAINERS)} | to lightly |\n{'|---' * (len(TRAINERS) + 2)}|")
    for backbone in backbones:
        found = [speeds[backbone, trainer] for trainer in TRAINERS]
        cells = [f"{median(each):.0f} ({min(each):.0f} to {max(each):.0f})" for each in found]
        print(f"| {backbone} | {' | '.join(cells)} | {median(found[0]) / median(found[-1]):.2f} |")


if __name__ == "__main__":
    main()
