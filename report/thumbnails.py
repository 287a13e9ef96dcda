"""Small pictures for a page: each image whole, or all of them as the encoder sees them, in sheets."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..runtime.cpus import available_cpus
from ..runtime.errors import ImageError
from ..runtime.preprocessing import Pixels, open_large
from .findings import Map

# Pixels: a thumbnail's longer side; twice what the page shows, for sharp screens and for print.
LONG = 160
# The side of a tile by the number of images, so that a page of 10,000 stays small.
TILE_SIDES = ((1500, 80), (4000, 56), (10_000, 40))
# Tiles in a row of a sheet, and rows.
ACROSS = 32
# The map with pictures: its side, the most and the fewest cells in a row, and a cell's longest side.
MAP_SIDE, MOST_CELLS, LEAST_CELLS, LARGEST_CELL = 1120, 28, 5, 112
QUALITY = 70


def choose_side(images: int) -> int:
    """The side of a tile, in pixels, for so many images."""
    return next((side for most, side in TILE_SIDES if images <= most), TILE_SIDES[-1][1])


def make_tiles(pixels: Pixels, side: int) -> Pixels:
    """Images uint8 `[N, H, W, 3]` as tiles `[N, side, side, 3]`, no larger than they are."""
    side = min(side, pixels.shape[1])
    return np.stack([np.asarray(Image.fromarray(each).resize((side, side))) for each in pixels])


def load_thumbnails(paths: Sequence[Path], rows: Iterable[int]) -> dict[int, str]:
    """The images of these rows, whole, as data URIs; without those that cannot be read any more."""
    wanted = sorted(set(rows))
    with ThreadPoolExecutor(available_cpus()) as pool:
        found = pool.map(_load, [paths[row] for row in wanted])
        return {row: uri for row, uri in zip(wanted, found, strict=True) if uri is not None}


def _load(path: Path) -> str | None:
    try:
        image, box = open_large(path, 2 * LONG)
    except ImageError:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, LONG / max(width, height, 1))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return to_uri(image.resize(size, Image.Resampling.BICUBIC, box))


@dataclass(frozen=True)
class Sheets:
    """Tiles of `side` pixels in sheets of 32 × 32, row by row, as data URIs."""

    side: int
    uris: tuple[str, ...]


def make_sheets(tiles: Pixels) -> Sheets:
    side, count = tiles.shape[1], ACROSS * ACROSS
    return Sheets(side, tuple(to_uri(_lay_out(tiles[at : at + count])) for at in range(0, len(tiles), count)))


def _lay_out(tiles: Pixels) -> Image.Image:
    side, rows = tiles.shape[1], -(-len(tiles) // ACROSS)
    sheet = Image.new("RGB", (side * min(ACROSS, len(tiles)), side * rows))
    for number, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (number % ACROSS * side, number // ACROSS * side))
    return sheet


def draw_map(drawn: Map, tiles: Pixels) -> Image.Image:
    """The map with pictures on a grid, each in the free cell that is nearest to its place; transparent elsewhere.

    One whose cell and those around it are taken is left out.
    """
    cells = min(MOST_CELLS, max(LEAST_CELLS, round(1.5 * len(drawn.places) ** 0.5)))
    side = min(LARGEST_CELL, MAP_SIDE // cells)
    picture, taken = Image.new("RGBA", (cells * side, cells * side)), set()
    for number in np.random.default_rng(0).permutation(len(drawn.places)):
        x, y = (cells * value for value in drawn.places[number])
        cell = _find_free(x, cells - y, cells, taken)  # the second axis points up, as on the map with points
        if cell is not None:
            taken.add(cell)
            tile = Image.fromarray(tiles[drawn.images[number]]).resize((side - 2, side - 2))
            picture.paste(tile, (cell[0] * side + 1, cell[1] * side + 1))
    return picture


def _find_free(x: float, y: float, cells: int, taken: set[tuple[int, int]]) -> tuple[int, int] | None:
    """The nearest free cell to a place, of the one that it is in and the eight around it."""
    column, row = min(int(x), cells - 1), min(int(y), cells - 1)
    around = ((column + right, row + down) for right in (-1, 0, 1) for down in (-1, 0, 1))
    free = [each for each in around if each not in taken and min(each) >= 0 and max(each) < cells]
    return min(free, key=lambda each: (each[0] + 0.5 - x) ** 2 + (each[1] + 0.5 - y) ** 2, default=None)


def to_uri(image: Image.Image) -> str:
    """A picture as the address of itself: WebP in a data URI."""
    content = io.BytesIO()
    image.save(content, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
