"""CIFAR-10 on disk, train/<class>/ and test/<class>/, and what the benchmarks of training share."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from byol_edge.evaluate.knn import knn_classes
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.runtime import Preprocessing, find_images
from byol_edge.runtime.fidelity import Vectors
from byol_edge.runtime.preprocessing import Pixels, prepare_all
from byol_edge.runtime.run import ENCODER
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True)
class Labeled:
    """Images of one size and their classes: `pixels` uint8 `[N, H, W, 3]`, `classes` `[N]`."""

    pixels: Pixels
    classes: NDArray[np.int64]


def link_images(source: Path, folder: Path, most: int) -> Path:
    """Links in one folder to `most` images or fewer, drawn evenly from the classes: training sees no labels."""
    paths = find_images(source)
    count = min(most, len(paths))
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths[:: len(paths) // count][:count]:
        link = folder / f"{path.parent.name}-{path.name}"
        with suppress(FileExistsError):
            link.symlink_to(path.resolve())
    return folder


def load_labeled(folder: Path, preprocessing: Preprocessing) -> Labeled:
    """The images of a folder, or of one that link_images made; their classes in alphabetical order."""
    paths = find_images(folder)
    names = [path.resolve().parent.name for path in paths]
    classes = sorted(set(names))
    return Labeled(prepare_all(paths, preprocessing), np.array([classes.index(name) for name in names]))


def find_neighbors(
    backbone: nn.Module, preprocessing: Preprocessing, bank: Labeled, test: Labeled
) -> tuple[NDArray[np.float64], Vectors]:
    """Whether kNN (k=200, T=0.1) is right about each test image, 1 or 0: `[N]`; and their embeddings `[N, D]`."""
    network = InferenceNetwork(backbone, preprocessing)
    vectors = [embed_pixels(network, part.pixels) for part in (bank, test)]
    return (knn_classes(vectors[0], bank.classes, vectors[1]) == test.classes).astype(float), vectors[1]


def train_by_command(images: Path, run: Path, *options: object) -> float:
    """`byol-edge train`, as anybody would call it; returns its seconds. A run that collapses is left as it stopped."""
    (run / ENCODER).unlink(missing_ok=True)  # or a training that fails would pass for the one before
    command = [sys.executable, "-m", "byol_edge", "train", images, "--out", run, "--overwrite", *options]
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if done.returncode and not (run / ENCODER).exists():
        sys.exit(done.stderr)
    return time.monotonic() - start


def cpu_seconds() -> float:
    """What all processes have computed so far that this one has started and that have ended, whatever ran beside."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_results(out: Path) -> list[dict[str, Any]]:
    """The lines of results.jsonl in `out`, none if it is not there: what need not be done again."""
    file = out / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_result(out: Path, line: dict[str, Any]) -> list[dict[str, Any]]:
    """Prints a line, adds it to results.jsonl in `out`, and returns all lines."""
    print(json.dumps(line), flush=True)
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return read_results(out)
