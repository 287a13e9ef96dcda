"""Searches pictures by style, whatever they show, and lays them out on a map by style.

    byol-edge export imagenet --features blocks.1,blocks.2,blocks.3 --int8 --calibration paintings/ --out bundles/art
    python examples/style_search.py bundles/art paintings/ found/ [query.jpg]

A picture's style is what the channels of the network's inner layers do on average and how much that varies, wherever in
the picture it happens: the means and standard deviations of its feature maps (Huang and Belongie, arXiv 1703.06868).
found/neighbors.png has a query in each row, the nearest pictures by style, and beside them the nearest by the network's
embedding. Without query.jpg, the queries are drawn at random; with it, the nearest by style are printed, too. On
found/map.png, pictures of one style lie together.
It takes the runtime and scikit-learn, whose t-SNE draws the map.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from byol_edge.runtime import ByolEdgeError, Encoder, Preprocessing, find_images, prepare
from byol_edge.runtime.contact_sheet import NAME_SIZE, shorten
from byol_edge.runtime.reading import read_batches
from byol_edge.runtime.text import to_text
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE

Floats = NDArray[np.float32]

QUERIES, NEIGHBORS = 6, 5
# In pixels: a picture on the sheet and on the map, the space between two, and a line of text.
SIDE, TILE, GAP, LINE = 128, 56, 8, 16
# So many pictures are on the map at most; it has room for so many times as many, so that groups stand apart.
MAPPED, ROOM = 600, 1.4


@dataclass(frozen=True)
class Collection:
    """Pictures, with a vector of style `[N, S]` and an embedding `[N, D]` each, of unit length."""

    paths: list[Path]
    styles: Floats
    embeddings: Floats


def measure_statistics(maps: Floats) -> Floats:
    """`[N, 2 C]` of one layer's maps `[N, C, H, W]`: each channel's mean and standard deviation over all places."""
    return np.concatenate([maps.mean((2, 3)), maps.std((2, 3))], axis=1)


def compare_with_all(statistics: Floats) -> Floats:
    """Unit vectors of how much each statistic differs from the collection's mean, in its standard deviations."""
    differences = (statistics - statistics.mean(0)) / statistics.std(0).clip(1e-6)
    return differences / np.linalg.norm(differences, axis=1, keepdims=True).clip(1e-6)


def join(layers: list[Floats]) -> Floats:
    """One unit vector of several, in which all count alike."""
    return np.concatenate(layers, axis=1) / np.float32(np.sqrt(len(layers)))


def describe(encoder: Encoder, paths: list[Path]) -> Collection:
    """The pictures that can be read; the others are named on standard error."""
    kept: list[Path] = []
    layers: dict[str, list[Floats]] = {each.name: [] for each in encoder.features}
    embeddings: list[Floats] = []
    for batch in read_batches(paths, encoder.preprocessing):
        for each in batch.unreadable:
            print(f"left out: {each.error}", file=sys.stderr)
        if batch.sources:
            kept += batch.sources
            embeddings.append(encoder.run(batch.pixels))
            for name, maps in encoder.run_maps(batch.pixels).items():
                layers[name].append(measure_statistics(maps))
    if len(kept) < 2:
        raise ByolEdgeError("fewer than two pictures can be read: there is nothing to compare")
    styles = join([compare_with_all(np.concatenate(parts)) for parts in layers.values()])
    return Collection(kept, styles, np.concatenate(embeddings))


def find_nearest(vectors: Floats, query: int) -> list[tuple[int, float]]:
    """The rows nearest to a row, and their cosines."""
    cosines = vectors @ vectors[query]
    cosines[query] = -np.inf
    nearest = np.argsort(-cosines, kind="stable")[: min(NEIGHBORS, len(vectors) - 1)]
    return [(int(row), float(cosines[row])) for row in nearest]


def load(path: Path, side: int) -> Image.Image:
    """The whole picture, on white."""
    return Image.fromarray(prepare(path, Preprocessing(side, mean=(1, 1, 1), fit="pad")))


def draw_sheet(collection: Collection, queries: list[int]) -> Image.Image:
    """In each row a query, the nearest by style, and the nearest by embedding."""
    wide, tall = SIDE + GAP, SIDE + 2 * LINE + GAP
    style, embedding = wide + 3 * GAP, (NEIGHBORS + 1) * wide + 6 * GAP
    sheet = Image.new("RGB", (GAP + embedding + NEIGHBORS * wide, GAP + LINE + len(queries) * tall), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(NAME_SIZE)
    draw.text((GAP + style, GAP), "by style", "black", font)
    draw.text((GAP + embedding, GAP), "by embedding", "black", font)
    for line, query in enumerate(queries):
        tiles = [(0, query, "query")]
        for left, vectors in ((style, collection.styles), (embedding, collection.embeddings)):
            nearest = enumerate(find_nearest(vectors, query))
            tiles += [(left + place * wide, row, f"{cosine:.2f}") for place, (row, cosine) in nearest]
        for left, row, figure in tiles:
            place = GAP + left, 2 * GAP + LINE + line * tall
            sheet.paste(load(collection.paths[row], SIDE), place)
            name = shorten(str(collection.paths[row]), SIDE)
            draw.text((place[0], place[1] + SIDE), f"{figure}\n{name}", "black", font, spacing=1)
    return sheet


def find_cells(styles: Floats) -> tuple[NDArray[np.intp], int]:
    """Cells `[N, 2]` of a square grid, column and row, one each, and the grid's side: t-SNE, without overlaps."""
    with np.errstate(invalid="ignore"):  # of equal pictures, nothing varies
        tsne = TSNE(init="pca", perplexity=min(30, len(styles) / 4), random_state=0)
        flat = np.nan_to_num(tsne.fit_transform(styles))
    side = int(np.ceil(np.sqrt(ROOM * len(styles))))
    flat = (flat - flat.min(0)) / np.ptp(flat, axis=0).clip(1e-6) * (side - 1)
    cells = np.stack(np.divmod(np.arange(side**2), side), axis=1)
    _, chosen = linear_sum_assignment(np.square(flat[:, None] - cells).sum(2))
    return cells[chosen], side


def draw_map(collection: Collection) -> Image.Image:
    rows = np.random.default_rng(0).permutation(len(collection.paths))[:MAPPED]
    cells, side = find_cells(collection.styles[rows])
    picture = Image.new("RGB", (side * TILE, side * TILE), "white")
    for row, (column, line) in zip(rows, cells, strict=True):
        picture.paste(load(collection.paths[row], TILE - 2), (int(column) * TILE + 1, int(line) * TILE + 1))
    return picture


def main(bundle: str, folder: str, out: str, query: str | None = None) -> None:
    encoder = Encoder(bundle)
    if not encoder.features:
        raise ByolEdgeError(f"{bundle} gives no feature maps; export it with --features blocks.1,blocks.2,blocks.3")
    paths = find_images(folder)
    if query is not None:  # first, and not again among the others
        paths = [Path(query), *(path for path in paths if path.resolve() != Path(query).resolve())]
    collection = describe(encoder, paths)
    if query is None:
        queries = np.random.default_rng(0).permutation(len(collection.paths))[:QUERIES].tolist()
    elif collection.paths[0] == Path(query):
        queries = [0]
    else:
        raise ByolEdgeError(f"{query} cannot be read")
    Path(out).mkdir(parents=True, exist_ok=True)
    draw_sheet(collection, queries).save(Path(out, "neighbors.png"))
    draw_map(collection).save(Path(out, "map.png"))
    print(f"{out}: neighbors.png, the nearest of {len(collection.paths)} pictures to {len(queries)}, and map.png")
    if query is not None:
        for row, cosine in find_nearest(collection.styles, 0):
            print(f"{cosine:.3f}  {to_text(collection.paths[row])}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ByolEdgeError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
