"""Encoders worth shipping: adapted and distilled ones beside their start, raw pixels and BYOL from random weights.

    pip install -e '.[all]'
    python benchmarks/worth_shipping.py SET... --out DIR [--students SET...]

A SET is a folder with train/<class>/ and test/<class>/. Training sees its images in one folder, so no classes. What is
finished is kept in DIR, and the same command goes on. On each set, EfficientNet-Lite0 with ImageNet's weights is
adapted; on each of --students, small networks with random weights are distilled from it, and trained by BYOL for as
long. All are measured on the test images: 5-NN, leave one out, each compared with the start image by image (paired 95 %
intervals), and view consistency, which takes no labels. Three tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from byol_edge.evaluate.intervals import bootstrap_interval
from byol_edge.evaluate.knn import knn_hits
from byol_edge.evaluate.label_free import draw_views, measure_consistency
from byol_edge.evaluate.raw import embed_raw
from byol_edge.models.encoders import Choice, open_encoder
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.weights import untrained_encoder
from byol_edge.runtime import Preprocessing, find_images
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.fidelity import Vectors
from byol_edge.runtime.images import folder_labels
from byol_edge.runtime.preprocessing import Pixels, prepare_all
from byol_edge.runtime.run import EncoderSpec, Run
from cifar10 import link_images, train_by_command
from label_free import collapsed
from numpy.typing import NDArray

START, TEACHER_SIDE = "package:efficientnet_lite0", 224
STUDENTS = ("mobilenetv4_conv_small", "conv4")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One value per test image: whether 5-NN is right, and view consistency. `seconds`: of training."""

    hits: Values
    consistency: Values
    seconds: float


@dataclass(frozen=True)
class Bench:
    """A set, and where its results are kept."""

    data: Path
    images: Path
    out: Path
    side: int
    most_test: int

    @property
    def name(self) -> str:
        return self.out.name

    def measure(self, name: str, make: Callable[[], tuple[Preprocessing, Callable[[Pixels], Vectors], float]]) -> None:
        """Measures what `make` gives on the test images, once: preprocessing, how it embeds, seconds of training."""
        file = self.out / f"{name}.npz"
        if file.exists():
            return
        preprocessing, embed, seconds = make()
        paths = self._find_tests()
        labels = np.unique(folder_labels(paths, self.data / "test") or [], return_inverse=True)[1]
        views = draw_views(paths, preprocessing)
        consistency = measure_consistency(embed, views)
        hits = knn_hits(embed(prepare_all(paths, preprocessing)), labels)
        np.savez(file, hits=hits, consistency=consistency, seconds=seconds)
        figures = f"5-NN {hits.mean():.3f}, view consistency {consistency.mean():.3f}"
        print(f"{self.name}, {name}: {figures}, trained in {seconds:.0f} s", flush=True)

    def read(self, name: str) -> Measured:
        found = np.load(self.out / f"{name}.npz")
        return Measured(found["hits"], found["consistency"], float(found["seconds"]))

    def names(self) -> list[str]:
        return sorted(file.stem for file in self.out.glob("*.npz"))

    def _find_tests(self) -> list[Path]:
        paths = find_images(self.data / "test")
        return paths[:: max(1, len(paths) // self.most_test)][: self.most_test]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--students", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5, help="of adaptation")
    parser.add_argument("--student-epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="to train on, at most")
    parser.add_argument("--tests", type=int, default=1000, help="images to test on, at most")
    arguments = parser.parse_args()
    benches = [prepare(data, arguments) for data in arguments.sets]
    for bench in benches:
        measure_floors(bench)
    for seed in range(arguments.seeds):
        for bench in benches:
            options = ("--init", START, "--epochs", arguments.epochs)
            bench.measure(f"adapted-{seed}", partial(train, bench, f"adapted-{seed}", seed, *options))
            if bench.data in arguments.students:
                measure_students(bench, seed, arguments.student_epochs)
        print_tables(benches, seed + 1)


def prepare(data: Path, arguments: argparse.Namespace) -> Bench:
    out = arguments.out / data.resolve().name
    images = link_images(data / "train", out / "images", arguments.images)
    return Bench(data, images, out, arguments.image_size, arguments.tests)


def measure_floors(bench: Bench) -> None:
    """Raw pixels, untrained networks, and the start, at the size that is trained at and as the teacher sees images."""
    plain = Preprocessing(bench.side)
    bench.measure("raw", lambda: (plain, embed_raw, 0.0))
    bench.measure("collapsed", lambda: (plain, collapsed, 0.0))
    for name in STUDENTS:
        bench.measure(f"untrained-{name}", partial(open_untrained, name, plain))
    for name, side in (("start", bench.side), ("teacher", TEACHER_SIDE)):
        bench.measure(name, partial(open_start, side))


def measure_students(bench: Bench, seed: int, epochs: int) -> None:
    """Each student distilled, and by BYOL in as many seconds."""
    for backbone in STUDENTS:
        distilled, byol = f"distilled-{backbone}-{seed}", f"byol-{backbone}-{seed}"
        own = ("--backbone", backbone)
        options = (*own, "--teacher", START, "--epochs", epochs)
        bench.measure(distilled, partial(train, bench, distilled, seed, *options))
        bench.measure(byol, lambda own=own, distilled=distilled, byol=byol: train_for(
            bench, byol, seed, bench.read(distilled).seconds, *own
        ))  # fmt: skip


def train(bench: Bench, name: str, seed: int, *options: object) -> tuple[Preprocessing, Callable, float]:
    """Trains by the command, without classes; the run's encoder."""
    run = bench.out / "runs" / name
    seconds = train_by_command(bench.images, run, "--image-size", bench.side, "--seed", seed, *options)
    encoder = open_encoder(str(run))
    return encoder.preprocessing, encoder.run, seconds


def train_for(
    bench: Bench, name: str, seed: int, seconds: float, *options: object
) -> tuple[Preprocessing, Callable, float]:
    """The same for so many seconds, by the speed of a first epoch."""
    start = time.monotonic()
    train(bench, f"{name}-timed", seed, *options, "--epochs", 1)
    whole = time.monotonic() - start
    epoch = Run(bench.out / "runs" / f"{name}-timed").read_metrics()[-1].seconds
    return train(bench, name, seed, *options, "--epochs", max(1, round((seconds - whole + epoch) / epoch)))


def open_start(side: int) -> tuple[Preprocessing, Callable, float]:
    encoder = open_encoder(START, Choice(image_size=side))
    return encoder.preprocessing, encoder.run, 0.0


def open_untrained(name: str, preprocessing: Preprocessing) -> tuple[Preprocessing, Callable, float]:
    network = InferenceNetwork(untrained_encoder(EncoderSpec(name, "standard", 1, preprocessing), 0), preprocessing)
    return preprocessing, partial(embed_pixels, network), 0.0


def print_tables(benches: list[Bench], seeds: int) -> None:
    print(f"\n{available_cpus()} CPU(s), {seeds} seed(s); 5-NN on test images, gains paired by image\n")
    print("| set | raw pixels | start | teacher | adapted | gain on the start, by seed | minutes |\n|" + "---|" * 7)
    for bench in benches:
        start, runs = bench.read("start"), [bench.read(f"adapted-{seed}") for seed in range(seeds)]
        gains = "; ".join(show_gain(each, start) for each in runs)
        plain = " | ".join(f"{bench.read(name).hits.mean():.3f}" for name in ("raw", "start", "teacher"))
        print(f"| {bench.name} | {plain} | {mean_of(runs):.3f} | {gains} | {minutes_of(runs):.1f} |")
    print("\n| set | student | untrained | BYOL | distilled | to the teacher, by seed | minutes |\n|" + "---|" * 7)
    for bench in benches:
        for backbone in STUDENTS:
            byol, distilled = (
                [bench.read(name) for seed in range(seeds) if (name := f"{kind}-{backbone}-{seed}") in bench.names()]
                for kind in ("byol", "distilled")
            )
            if not byol:
                continue
            gaps = "; ".join(show_gain(each, bench.read("teacher")) for each in distilled)
            untrained = bench.read(f"untrained-{backbone}").hits.mean()
            print(
                f"| {bench.name} | {backbone} | {untrained:.3f} | {mean_of(byol):.3f} | {mean_of(distilled):.3f} | "
                f"{gaps} | {minutes_of(distilled):.1f} |"
            )
    print("\n| set | encoders | pairs whose accuracies differ | ordered alike by view consistency |\n|" + "---|" * 4)
    for bench in benches:
        found = {name: bench.read(name) for name in bench.names()}
        decided, alike = count_orders(list(found.values()))
        print(f"| {bench.name} | {len(found)} | {decided} | {alike / max(decided, 1):.3f} |")


def count_orders(encoders: list[Measured]) -> tuple[int, int]:
    """Pairs whose accuracies differ by more than their interval, and how many of these view consistency orders so."""
    decided = alike = 0
    for one, other in combinations(encoders, 2):
        gain = bootstrap_interval(one.hits - other.hits)
        if gain.lower > 0 or gain.upper < 0:
            decided += 1
            alike += (one.consistency.mean() > other.consistency.mean()) == (gain.mean > 0)
    return decided, alike


def show_gain(one: Measured, other: Measured) -> str:
    gain = bootstrap_interval(one.hits - other.hits)
    return f"{gain.mean:+.3f} ({gain.lower:+.3f} to {gain.upper:+.3f})"


def mean_of(runs: list[Measured]) -> float:
    return float(np.mean([each.hits.mean() for each in runs]))


def minutes_of(runs: list[Measured]) -> float:
    return float(np.mean([each.seconds for each in runs])) / 60


if __name__ == "__main__":
    main()
