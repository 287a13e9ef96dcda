"""Contact sheets: an image and its neighbors, each with its cosine and its name; rows of small pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .errors import ImageError
from .nearest import Neighbor
from .preprocessing import Pixels, Preprocessing, prepare
from .text import to_text

# In pixels. The query's tile is twice as large, and as high as two rows of neighbors.
TILE, GAP, MARGIN = 176, 16, 24
FIGURE_SIZE, NAME_SIZE = 15, 12
CAPTION = FIGURE_SIZE + NAME_SIZE + 14
COLUMNS = 5
ROW = TILE + CAPTION + GAP
LARGE = 2 * TILE + CAPTION + GAP

# Of rows of small pictures: a tile's side, to which whole pixels are repeated, and the width of the rows' names.
SMALL, SMALL_GAP, NAMES = 128, 8, 190

PAPER, EMPTY, INK, FAINT, FRAME = (255, 255, 255), (240, 240, 240), (25, 25, 25), (110, 110, 110), (205, 205, 205)


def draw_sheet(query: str, neighbors: Sequence[Neighbor]) -> Image.Image:
    """The query at the left, its neighbors beside it in rows of five, nearest first, each with its rank and cosine.

    Images are shown whole. One that cannot be read is an empty tile that says so.
    """
    columns, rows = min(COLUMNS, len(neighbors)), math.ceil(len(neighbors) / COLUMNS)
    width = 2 * MARGIN + LARGE + columns * (TILE + GAP) + GAP
    height = 2 * MARGIN + max(rows * ROW - GAP, LARGE + CAPTION)
    sheet = Image.new("RGB", (width, height), PAPER)
    _draw_tile(sheet, query, "query", (MARGIN, MARGIN), LARGE)
    for rank, each in enumerate(neighbors):
        row, column = divmod(rank, COLUMNS)
        place = MARGIN + LARGE + 2 * GAP + column * (TILE + GAP), MARGIN + row * ROW
        _draw_tile(sheet, each.source, f"{rank + 1}   {each.cosine:.3f}", place, TILE)
    return sheet


@dataclass(frozen=True)
class Strip:
    """A row of small pictures, uint8 `[side, side, 3]` each; None leaves a place empty. `captions`: below each, if any.

    `name`: what stands beside the row; line feeds part its lines.
    """

    name: str
    tiles: Sequence[Pixels | None]
    captions: Sequence[str] = ()


def draw_strips(title: str, strips: Sequence[Strip]) -> Image.Image:
    """Rows of small pictures of one size, each with its name at the left, under a title of one line or several."""
    names = NAMES if any(strip.name for strip in strips) else 0
    columns = max(len(strip.tiles) for strip in strips)
    width = 2 * MARGIN + names + columns * (SMALL + SMALL_GAP) - SMALL_GAP
    lines = wrap(title, width - 2 * MARGIN)
    top = MARGIN + len(lines) * (FIGURE_SIZE + 6) + GAP
    heights = [SMALL + SMALL_GAP + (NAME_SIZE + 8 if strip.captions else 0) for strip in strips]
    sheet = Image.new("RGB", (width, top + sum(heights) - SMALL_GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((MARGIN, MARGIN), "\n".join(lines), INK, _font(FIGURE_SIZE), spacing=6)
    for strip, height in zip(strips, heights, strict=True):
        _draw_strip(sheet, strip, top, names)
        top += height
    return sheet


def _draw_strip(sheet: Image.Image, strip: Strip, top: int, names: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((MARGIN, top + SMALL // 2), strip.name, INK, _font(FIGURE_SIZE), anchor="lm", spacing=5)
    for place, tile in enumerate(strip.tiles):
        left = MARGIN + names + place * (SMALL + SMALL_GAP)
        if tile is not None:
            scale = max(1, SMALL // len(tile))
            kind = Image.Resampling.NEAREST if scale * len(tile) == SMALL else Image.Resampling.BICUBIC
            sheet.paste(Image.fromarray(tile).resize((SMALL, SMALL), kind), (left, top))
        if place < len(strip.captions):
            text = shorten(strip.captions[place], SMALL)
            draw.text((left, top + SMALL + 2), text, FAINT, _font(NAME_SIZE))


def wrap(text: str, width: int) -> list[str]:
    """A text in lines that fit into `width` pixels, parted between words."""
    font, lines = _font(FIGURE_SIZE), [""]
    for word in to_text(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _draw_tile(sheet: Image.Image, source: str, figure: str, place: tuple[int, int], side: int) -> None:
    left, top = place
    draw = ImageDraw.Draw(sheet)
    try:
        sheet.paste(_load(source, side), place)
    except ImageError:
        why = "cannot be read" if Path(source).exists() else "no such file"
        draw.rectangle((left, top, left + side - 1, top + side - 1), EMPTY)
        draw.text((left + side / 2, top + side / 2), why, FAINT, _font(FIGURE_SIZE), anchor="mm")
    draw.rectangle((left, top, left + side - 1, top + side - 1), outline=FRAME)
    draw.text((left, top + side + 6), figure, INK, _font(FIGURE_SIZE))
    draw.text((left, top + side + 10 + FIGURE_SIZE), shorten(source, side), FAINT, _font(NAME_SIZE))


def _load(source: str, side: int) -> Image.Image:
    """The whole image on paper, `side` pixels wide and high. Raises ImageError."""
    red, green, blue = (channel / 255 for channel in EMPTY)
    return Image.fromarray(prepare(source, Preprocessing(side, (red, green, blue), fit="pad")))


def shorten(source: str, width: int) -> str:
    """An image's folder and name, with as much of the middle left out as it takes to fit into `width` pixels."""
    name = to_text("/".join(Path(source).parts[-2:]))
    font = _font(NAME_SIZE)
    for kept in range(min(len(name), width), 1, -1):  # a file of vectors may hold names without end
        half = kept // 2
        shown = name if kept == len(name) else f"{name[: kept - half]}…{name[-half:]}"
        if font.getlength(shown) <= width:
            return shown
    return "…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, the same on every machine."""
    return ImageFont.load_default(size)
