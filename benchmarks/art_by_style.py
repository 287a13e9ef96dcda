"""Search by style: how many of the nearest pictures have the query's style, and are by its artist's hand.

    pip install -e '.[all]'
    python benchmarks/drawn_art.py --out drawn
    byol-edge export imagenet --image-size 128 --int8 --calibration drawn --out bundles/art \
        --features blocks.0,blocks.1,blocks.2,blocks.3,blocks.4,blocks.5,blocks.6
    python benchmarks/art_by_style.py bundles/art --pictures drawn [--layers]

A folder of pictures has STYLE-HAND/SUBJECT-NN.png, as benchmarks/drawn_art.py writes them. A figure is the share of the
five nearest to each picture, by cosine: that have its style, where those of its own subject are not searched; that are
by its hand, among all and again without its own subject; and that have its subject, among all and without those by its
own hand. With --layers, of each feature map alone, too. A table in Markdown, by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from byol_edge.runtime import Bundle, Encoder, Preprocessing, find_images
from byol_edge.runtime.fidelity import unit_rows
from byol_edge.runtime.preprocessing import prepare_all
from byol_edge.runtime.reading import read_batches
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from style_search import compare_with_all, join, measure_statistics

Floats = NDArray[np.float32]
Names = NDArray[np.str_]

NEAREST = 5
# Of Gram matrices, so many principal components are kept; of colors, so many shades of each channel.
COMPONENTS, SHADES = 128, 4
# What the example's docstring recommends.
RECOMMENDED = ("blocks.1", "blocks.2", "blocks.3")


@dataclass(frozen=True)
class Pictures:
    """Files, with the style, the hand and the subject that each is named by."""

    paths: list[Path]
    styles: Names
    hands: Names
    subjects: Names


def read_pictures(folder: Path) -> Pictures:
    paths = find_images(folder)
    hands = [path.parent.name for path in paths]
    styles = [hand.rsplit("-", 1)[0] for hand in hands]
    subjects = [path.stem.rsplit("-", 1)[0] for path in paths]
    return Pictures(paths, np.array(styles), np.array(hands), np.array(subjects))


def measure_precision(vectors: Floats, right: Names, apart: Names | None = None) -> float:
    """The share of the nearest that are `right`, without the query and those that share its `apart`."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    if apart is not None:
        cosines[apart[:, None] == apart] = -np.inf
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
    return float((right[nearest] == right[:, None]).mean())


def describe_colors(paths: list[Path]) -> Floats:
    """Histograms of colors; square roots, so that their cosine is the Bhattacharyya coefficient."""
    shades = prepare_all(paths, Preprocessing(64)).astype(int) * SHADES // 256
    codes = (shades @ (SHADES**2, SHADES, 1)).reshape(len(paths), -1)
    return unit_rows(np.sqrt([np.bincount(row, minlength=SHADES**3) for row in codes]).astype(np.float32))


def measure_grams(maps: Floats) -> Floats:
    """`[N, C (C + 1) / 2]` of maps `[N, C, H, W]`: how two channels go together (Gatys et al. 2016)."""
    flat = maps.reshape(*maps.shape[:2], -1)
    rows, columns = np.triu_indices(flat.shape[1])
    return (flat @ flat.transpose(0, 2, 1) / flat.shape[2])[:, rows, columns]


def shorten(vectors: Floats) -> Floats:
    """Their first principal components, as unit vectors."""
    centered = vectors - vectors.mean(0)
    values, directions = np.linalg.eigh(centered @ centered.T)
    return unit_rows(directions[:, -COMPONENTS:] * np.sqrt(values[-COMPONENTS:].clip(0)))


def describe(encoder: Encoder, paths: list[Path], layers: bool) -> Iterator[tuple[str, Floats]]:
    """What is compared, by name, as unit vectors `[N, …]`."""
    contents: list[Floats] = []
    statistics: dict[str, list[Floats]] = {each.name: [] for each in encoder.features}
    chosen = [name for name in statistics if name in RECOMMENDED] or list(statistics)
    grams: dict[str, list[Floats]] = {name: [] for name in chosen}
    for batch in read_batches(paths, encoder.preprocessing):
        maps = encoder.run_maps(batch.pixels)
        contents.append(encoder.run(batch.pixels))
        for name, each in maps.items():
            statistics[name].append(measure_statistics(each))
        for name, parts in grams.items():
            parts.append(measure_grams(maps[name]))
    whole = {name: compare_with_all(np.concatenate(parts)) for name, parts in statistics.items()}
    embeddings = np.concatenate(contents)
    style = join([whole[name] for name in chosen])
    yield "embedding", embeddings
    yield "embedding, compared with all", compare_with_all(embeddings)
    if layers:
        yield from ((f"statistics of {name}", each) for name, each in whole.items())
        yield "statistics of all", join(list(whole.values()))
    yield f"statistics of {', '.join(chosen)}", style
    yield "Gram matrices of these", shorten(join([compare_with_all(np.concatenate(each)) for each in grams.values()]))
    yield "these statistics and the embedding", join([style, compare_with_all(embeddings)])


def print_row(name: str, vectors: Floats, pictures: Pictures) -> None:
    hands, subjects = pictures.hands, pictures.subjects
    figures = [
        measure_precision(vectors, pictures.styles, subjects),
        measure_precision(vectors, hands),
        measure_precision(vectors, hands, subjects),
        measure_precision(vectors, subjects),
        measure_precision(vectors, subjects, hands),
    ]
    print(f"| {name} | {' | '.join(f'{each:.3f}' for each in figures)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--pictures", required=True, type=Path)
    parser.add_argument("--layers", action="store_true", help="each feature map alone, too")
    asked = parser.parse_args()
    pictures = read_pictures(asked.pictures)
    columns = ("style, other subjects", "hand", "hand, other subjects", "subject", "subject, other hands")
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    print_row(
        "raw pixels, 32 px",
        unit_rows(prepare_all(pictures.paths, Preprocessing(32)).reshape(len(pictures.paths), -1).astype(np.float32)),
        pictures,
    )
    print_row("colors", describe_colors(pictures.paths), pictures)
    for bundle in asked.bundles:
        for variant in (name for name in Bundle.open(bundle).variants if name.endswith(".onnx")):
            encoder = Encoder(bundle, variant, backend="onnxruntime")
            for name, vectors in describe(encoder, pictures.paths, asked.layers):
                print_row(f"{Path(bundle).name}, {variant}: {name}", vectors, pictures)


if __name__ == "__main__":
    main()
