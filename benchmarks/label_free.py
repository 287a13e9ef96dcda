"""Which figure orders encoders as accuracy does, when nobody has labeled an image, or five per class: on each set.

    pip install -e '.[all]'
    python benchmarks/label_free.py SET... --sources package:efficientnet_lite0 RUN... --out DIR

A SET is a folder of images in <class>/. What is finished is kept in DIR, and the same command goes on. The pool: raw
pixels, a constant with a little noise, untrained networks, each source at each side, and the first source with noise
on its weights. A pair of encoders is decided if the paired 95 % interval of the difference of their accuracies (5-NN,
leave one out, on all images but the five per class) excludes 0. A figure is chosen on some sets; on the others it
shows how often it errs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from byol_edge.evaluate.accuracy import draw_rows
from byol_edge.evaluate.few_labels import add_labels, average_precision
from byol_edge.evaluate.intervals import bootstrap_interval
from byol_edge.evaluate.knn import knn_hits
from byol_edge.evaluate.label_free import MOST_IMAGES, NEIGHBORS, draw_views, view_consistency
from byol_edge.evaluate.rank import rank_me
from byol_edge.evaluate.raw import embed_raw
from byol_edge.models.backbones import build_backbone
from byol_edge.models.encoders import Choice, load_start
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.starts import Start, find_start
from byol_edge.runtime.fidelity import Vectors, nearest, unit_rows
from byol_edge.runtime.images import find_images, folder_labels
from byol_edge.runtime.preprocessing import Pixels, Preprocessing, prepare_all
from byol_edge.train.pictures import place, read_picture
from byol_edge.train.rendering import render
from byol_edge.train.views import RandomCrop, View, sample
from numpy.typing import NDArray

Values = NDArray[np.float64]
WEAK = View(RandomCrop((0.5, 1.0)), jitter=0, grayscale=0)
UNTRAINED, NOISES = ("conv4", "tf_efficientnet_lite0"), (0.1, 0.25, 0.5)
NO_FIGURES = ("accuracy", "nearest")
FEW = 5


@dataclass(frozen=True)
class Candidate:
    """An encoder of the pool. `build`: makes the function that embeds; nothing is loaded before."""

    name: str
    preprocessing: Preprocessing
    build: Callable[[], Callable[[Pixels], Vectors]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--sources", nargs="+", default=["package:efficientnet_lite0"])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--images", type=int, default=MOST_IMAGES)
    parser.add_argument(
        "--glyphs", nargs="*", default=[], help="sets whose mirror images are another thing: digits-test"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shares = {}
    for data in arguments.sets:
        drawn = draw_rows(len(find_images(data)), arguments.images)
        folder = arguments.out / "-".join(data.resolve().parts[-2:])
        folder.mkdir(parents=True, exist_ok=True)
        for each in list_pool(arguments.sources, arguments.sides):
            if not (file := folder / f"{each.name}.npz").exists():
                mirrored = 0.0 if folder.name in arguments.glyphs else 0.5
                np.savez(file, allow_pickle=False, **measure(each, data, drawn, mirrored))
        files = sorted(folder.glob("*.npz"))
        shares[folder.name] = compare_orders({file.stem: dict(np.load(file)) for file in files})
    print_table(shares)


def list_pool(sources: list[str], sides: list[int]) -> Iterator[Candidate]:
    """Encoders from the worst to the best that are at hand, in no order."""
    plain = Preprocessing(sides[0])
    yield Candidate("raw pixels", plain, lambda: embed_raw)
    yield Candidate("collapsed", plain, lambda: collapsed)
    for name in UNTRAINED:
        yield Candidate(f"untrained {name}", plain, partial(build_untrained, name, plain))
    for source in sources:
        start = find_start(source)
        for side in sides:
            preprocessing = Preprocessing(side, start.mean or plain.mean, start.std or plain.std)
            name = f"{Path(source).name.rpartition(':')[2]} {side} px"
            first = (source, side) == (sources[0], sides[0])
            for noise in (0, *NOISES) if first else (0,):
                build = partial(build_start, start, preprocessing, noise)
                yield Candidate(f"{name} noise {noise}" if noise else name, preprocessing, build)


def collapsed(pixels: Pixels) -> Vectors:
    """Nearly the same for all images; the noise depends on the pixels, as rounding does."""
    rng = np.random.default_rng(int(pixels.sum()))
    return (1 + 1e-3 * rng.normal(size=(len(pixels), 64))).astype(np.float32)


def build_untrained(name: str, preprocessing: Preprocessing) -> Callable[[Pixels], Vectors]:
    torch.manual_seed(0)
    return partial(embed_pixels, InferenceNetwork(build_backbone(name, preprocessing.image_size), preprocessing))


def build_start(start: Start, preprocessing: Preprocessing, noise: float) -> Callable[[Pixels], Vectors]:
    """A start; `noise`: how far each kernel is moved, in its own deviations."""
    loaded = load_start(start, Choice(image_size=preprocessing.image_size))
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in loaded.backbone.parameters():
            if noise and weights.ndim > 1:
                weights += noise * weights.std() * torch.randn_like(weights)
    return partial(embed_pixels, InferenceNetwork(loaded.backbone, preprocessing, loaded.tail))


def measure(candidate: Candidate, data: Path, drawn: NDArray[np.intp], mirrored: float) -> dict[str, Values]:
    """What is right by 5-NN, and every figure: one value per image `[N]`, or one in all `[]`; the nearest `[N, 10]`."""
    paths = find_images(data)
    labels = np.unique(np.array(folder_labels(paths, data)), return_inverse=True)[1][drawn]
    labeled = draw_labeled(labels)
    images, preprocessing, embed = [paths[row] for row in drawn], candidate.preprocessing, candidate.build()
    views = draw_views(images, preprocessing, mirrored)
    whole, strong = embed(views.whole), (embed(views.first), embed(views.second))
    weak = [embed(each) for each in draw_weak(images, preprocessing, mirrored)]
    halves = [embed(each) for each in cut(images, preprocessing)]
    consistency, precision = view_consistency(whole, *strong), average_precision(whole[labeled], labels[labeled])
    figures = {
        "view consistency": consistency,
        "labels, five per class": precision,
        "view consistency and labels": add_labels(consistency, precision),
        "retrieval, strong views": retrieval(*strong),
        "retrieval, weak views": retrieval(*weak),
        "retrieval, halves": retrieval(*halves),
        "neighbors, strong views": overlap(*strong),
        "neighbors, weak views": overlap(*weak),
        "RankMe": np.array(rank_me(unit_rows(whole))),
        "LiDAR": np.array(lidar(np.stack([*weak, *strong]))),
        "alpha-ReQ": np.array(alpha_req(whole)),
    }
    accuracy = np.delete(knn_hits(whole, labels), labeled)
    means = ", ".join(f"{name} {values.mean():.3f}" for name, values in figures.items())
    print(f"{data} {candidate.name}: accuracy {accuracy.mean():.3f}, {means}", flush=True)
    return {"accuracy": accuracy, **figures, "nearest": nearest(whole, NEIGHBORS).astype(float)}


def draw_labeled(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places of five images of each class, always the same ones."""
    order = np.random.default_rng(0).permutation(len(labels))
    return np.concatenate([order[labels[order] == label][:FEW] for label in np.unique(labels)])


def draw_weak(images: list[Path], preprocessing: Preprocessing, mirrored: float) -> tuple[Pixels, Pixels]:
    """Two large crops of each image, colors as they are."""
    pairs, view = [], replace(WEAK, flip=mirrored)
    for row, path in enumerate(images):
        picture, rng = read_picture(path, preprocessing), np.random.default_rng((1, row))
        drawn = [place(sample(view, picture.size, "crop", rng), picture, "crop") for _ in range(2)]
        pairs.append([render(picture.pixels, each, preprocessing.image_size) for each in drawn])
    return np.stack([first for first, _ in pairs]), np.stack([second for _, second in pairs])


def cut(images: list[Path], preprocessing: Preprocessing) -> tuple[Pixels, Pixels]:
    """The left half of each image's square and the right one, which have no pixel in common."""
    squashed, side = replace(preprocessing, fit="squash"), preprocessing.image_size
    squares = prepare_all(images, replace(preprocessing, image_size=2 * side))
    return prepare_all(list(squares[:, :, :side]), squashed), prepare_all(list(squares[:, :, side:]), squashed)


def retrieval(first: Vectors, second: Vectors) -> Values:
    """Whether the nearest of all second views is the image's own: 1, 0; the mean of both directions."""
    cosines = unit_rows(first) @ unit_rows(second).T
    return np.mean([cosines.argmax(axis) == np.arange(len(first)) for axis in (0, 1)], axis=0)


def overlap(first: Vectors, second: Vectors) -> Values:
    """Share of the ten images nearest by the first views that are nearest by the second ones, too."""
    pairs = zip(nearest(first, NEIGHBORS), nearest(second, NEIGHBORS), strict=True)
    return np.array([len(np.intersect1d(one, other)) for one, other in pairs]) / NEIGHBORS


def lidar(views: Vectors) -> float:
    """LiDAR: the effective number of dimensions that tell images from views. Thilak et al. 2023, arXiv 2312.04000.

    `views` `[views, N, D]`; in their first 256 principal components, where there are more.
    """
    count, images, size = views.shape
    rows = views.reshape(-1, size).astype(np.float64)
    rows = rows - rows.mean(0)
    rows = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -256:]
    means = rows.reshape(count, images, -1).mean(0)
    rest = (rows.reshape(count, images, -1) - means).reshape(len(rows), -1)
    within = rest.T @ rest / (len(rows) - images)
    within += 1e-4 * np.trace(within) / len(within) * np.eye(len(within))
    values, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(values.clip(1e-12))
    between = np.linalg.eigvalsh(whiten.T @ np.cov(means.T) @ whiten).clip(0)
    shares = between / max(between.sum(), 1e-12) + 1e-12
    return float(np.exp(-(shares * np.log(shares)).sum()))


def alpha_req(vectors: Vectors) -> float:
    """α-ReQ: minus the distance from 1 of the exponent by which the spectrum falls. Agrawal et al. 2022, NeurIPS."""
    unit = unit_rows(vectors)
    spectrum = np.linalg.svd(unit - unit.mean(0), compute_uv=False) ** 2
    spectrum = spectrum[spectrum > 1e-9 * spectrum[0]][: len(unit) // 2]
    slope = np.polyfit(np.log(np.arange(1, len(spectrum) + 1)), np.log(spectrum), 1)[0]
    return -abs(-float(slope) - 1)


def compare_orders(pool: dict[str, dict[str, Values]]) -> dict[str, NDArray[np.intp]]:
    """Of each figure, how many pairs that accuracy decides it orders right, of how many; the same where it decides."""
    add_consensus(pool)
    encoders = list(pool.values())
    counts = {figure: np.zeros(4, np.intp) for figure in encoders[0] if figure not in NO_FIGURES}
    for number, one in enumerate(encoders):
        for other in encoders[:number]:
            change = bootstrap_interval(one["accuracy"] - other["accuracy"])
            if change.lower <= 0 <= change.upper:
                continue
            for figure, count in counts.items():
                difference = one[figure] - other[figure]
                right = bool(difference.mean() * change.mean > 0)
                sure = bootstrap_interval(difference) if difference.ndim else None
                decided = sure is not None and not sure.lower <= 0 <= sure.upper
                count += [right, 1, right and decided, decided]
    return counts


def add_consensus(pool: dict[str, dict[str, Values]]) -> None:
    """How many of an image's nearest the other encoders of the pool find, too, on average."""
    for name, one in pool.items():
        others = [other["nearest"] for each, other in pool.items() if each != name]
        shared = [[len(np.intersect1d(*pair)) for pair in zip(one["nearest"], other, strict=True)] for other in others]
        one["consensus"] = np.mean(shared, 0) / NEIGHBORS


def print_table(shares: dict[str, dict[str, NDArray[np.intp]]]) -> None:
    """Candidates by sets: share of the decided pairs ordered right, and of those that the figure decides, too."""
    print(f"\n{'':<28}" + "".join(f"{name:>24}" for name in shares))
    for figure in next(iter(shares.values())):
        cells = []
        for counts in shares.values():
            right, pairs, sure, decided = counts[figure]
            cells.append(f"{right / max(pairs, 1):.3f}  {sure}/{decided} of {pairs}")
        print(f"{figure:<28}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
