"""Time per image, memory and start-up as the set grows from ten thousand to a million images, drawn, of 32 px.

    python benchmarks/growth.py --out DIR

A million small files take 4 GB of disk and some minutes to draw; those that are there are not drawn again. Each set is
decoded into a cache, and trained on for one epoch. Listing the folder is timed apart from the rest of the start, which
ends with the figures of the untrained network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from byol_edge.runtime import Preprocessing, find_images
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.run import Run
from byol_edge.train.cache import open_cache
from PIL import Image

SIDE = 32
IN_A_FOLDER = 1000


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes of the process that trains; `per_image`: of its one epoch."""

    images: int
    listing: float
    start: float
    per_image: float
    memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", default="10000,100000,1000000")
    parser.add_argument("--backbone", default="conv4")
    arguments = parser.parse_args()
    rows = [measure(int(count), arguments.backbone, arguments.out) for count in arguments.images.split(",")]
    print(f"{arguments.backbone} at {SIDE} px, {available_cpus()} CPUs, a cached run")
    print("| images | listing, s | start after it, s | ms per image | memory, GB |\n|---|---|---|---|---|")
    for row in rows:
        figures = f"{row.listing:.1f} | {row.start:.1f} | {1000 * row.per_image:.3f} | {row.memory / 1e9:.2f}"
        print(f"| {row.images} | {figures} |")


def measure(count: int, backbone: str, out: Path) -> Measured:
    images = out / f"images-{count}"
    draw_set(images, count)
    asked = time.perf_counter()
    paths = find_images(images)
    listing = time.perf_counter() - asked
    open_cache(out / "cache", paths, Preprocessing(SIDE), available_cpus())
    start, said = train(images, out / f"run-{count}", backbone, out / "cache")
    print(f"{count} images: {said}", flush=True)
    (epoch,) = Run(out / f"run-{count}").read_metrics()[1:]
    assert epoch.images_per_s is not None and epoch.memory is not None
    return Measured(count, listing, start, 1 / epoch.images_per_s, epoch.memory)


def train(images: Path, out: Path, backbone: str, cache: Path) -> tuple[float, str]:
    """Seconds from when the folder is listed to the untrained network's figures, and the last of what was said."""
    command = [sys.executable, "-m", "byol_edge", "train", images, "--out", out, "--cache", cache, "--overwrite"]
    command += ["--backbone", backbone, "--image-size", SIDE, "--epochs", 1, "--batch-size", 256, "--precision", "fp32"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    listed = begun = 0.0
    lines = []
    for line in process.stderr or ():
        lines.append(line.strip())
        if line.endswith(" images\n") and not listed:
            listed = time.perf_counter()
        if line.startswith("before training"):
            begun = time.perf_counter()
    if process.wait():
        sys.exit("\n".join(lines))
    return begun - listed, next(line for line in reversed(lines) if line.startswith("epoch"))


def draw_set(folder: Path, count: int) -> None:
    """Images of a shade with a square in it, in folders of a thousand, which are no classes."""
    folder = folder / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [(folder, start, min(count, start + IN_A_FOLDER)) for start in range(0, count, IN_A_FOLDER)]
    with ProcessPoolExecutor(available_cpus()) as pool:
        for _ in pool.map(draw_part, parts):
            pass


def draw_part(part: tuple[Path, int, int]) -> None:
    folder, start, stop = part
    home = folder / f"{start // IN_A_FOLDER:04}"
    if home.is_dir():
        return
    unfinished = home.with_suffix(f".{os.getpid()}")
    unfinished.mkdir()
    random = np.random.default_rng(start)
    for number, pixels in zip(range(start, stop), draw_pixels(random), strict=False):
        Image.fromarray(pixels).save(unfinished / f"{number:07}.png", compress_level=1)
    unfinished.rename(home)


def draw_pixels(random: np.random.Generator) -> Iterator[np.ndarray]:
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    while True:
        top, bottom, color = random.integers(0, 256, (3, 3))
        pixels = (top * (1 - ramp) + bottom * ramp).astype(np.uint8).repeat(SIDE, 1)
        left, upper, side = random.integers(0, 20), random.integers(0, 20), random.integers(4, 12)
        pixels[upper : upper + side, left : left + side] = color
        yield pixels


if __name__ == "__main__":
    main()
