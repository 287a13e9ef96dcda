"""Ways to paint a picture: each makes of an image, drawn or photographed, one in a style, whatever it shows.

A style takes uint8 pixels `[SIDE, SIDE, 3]`, a hand (0, 1 or 2: three artists, from fine to coarse) and a random
generator, and gives pixels of the same size. Colors are the picture's own, paper its lightest and ink its darkest, so
that a palette does not tell a style.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Random = np.random.Generator

# Styles paint at this size, in pixels; pictures are kept at half of it.
SIDE = 512
HANDS = 3
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def make_noise(coarse: float, random: Random) -> Floats:
    """`[SIDE, SIDE]` of mean 0 and deviation 1, smooth over about `coarse` pixels."""
    cells = max(2, round(SIDE / coarse))
    small = Image.fromarray(random.normal(size=(cells, cells)).astype(np.float32))
    noise = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return (noise - noise.mean()) / noise.std()


def blur(pixels: Pixels, radius: float) -> Floats:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)), np.float32)


def measure_light(pixels: Pixels | Floats) -> Floats:
    """From 0 to 1, stretched so that one in fifty is black, and one in fifty white."""
    gray = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(gray, (2, 98))
    return ((gray - low) / max(high - low, 1)).clip(0, 1).astype(np.float32)


def find_extremes(pixels: Pixels) -> tuple[Floats, Floats]:
    """Ink and paper: the means of the darkest and of the lightest twentieth, ink a little darker, paper lighter."""
    rows = pixels[::8, ::8].reshape(-1, 3).astype(np.float32)
    rows = rows[rows.sum(1).argsort()]
    count = len(rows) // 20
    return rows[:count].mean(0) * 0.7, 255 - (255 - rows[-count:].mean(0)) * 0.5


def finish(values: Floats) -> Pixels:
    return values.clip(0, 255).astype(np.uint8)


def to_color(values: Floats) -> tuple[int, int, int]:
    red, green, blue = values.clip(0, 255).astype(int).tolist()
    return red, green, blue


def paint_poster(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Flat colors, outlined."""
    colors, width = ((9, 3), (7, 5), (5, 9))[hand]
    flat = Image.fromarray(pixels).filter(ImageFilter.MedianFilter(7)).quantize(colors, dither=Image.Dither.NONE)
    labels = flat.convert("RGB").filter(ImageFilter.ModeFilter(9))
    values = np.asarray(labels, np.int16)
    edges = np.zeros((SIDE, SIDE), bool)
    edges[1:] |= (values[1:] != values[:-1]).any(2)
    edges[:, 1:] |= (values[:, 1:] != values[:, :-1]).any(2)
    line = Image.fromarray(edges).convert("L").filter(ImageFilter.MaxFilter(width))
    ink, _ = find_extremes(pixels)
    return finish(np.where(np.asarray(line)[:, :, None] > 0, ink, values))


def paint_points(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Dots beside each other, of colors that differ from the picture's and make them together."""
    _, paper = find_extremes(pixels)
    picture = Image.fromarray(finish(0.6 * blur(pixels, 8) + 0.4 * paper))
    draw = ImageDraw.Draw(picture)
    step, apart = ((6.5, 20), (8.5, 30), (11, 40))[hand]
    places = np.stack(np.meshgrid(np.arange(0, SIDE, step), np.arange(0, SIDE, step)), axis=2).reshape(-1, 2)
    for x, y in random.permutation(places + random.uniform(-step / 2, step / 2, places.shape)):
        color = pixels[int(y.clip(0, SIDE - 1)), int(x.clip(0, SIDE - 1))] + random.normal(0, apart, 3)
        radius = step * random.uniform(0.45, 0.65)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), to_color(color))
    return np.asarray(picture)


def paint_hatching(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Colored pencils on paper: straight lines, crossed where it is dark."""
    ink, paper = find_extremes(pixels)
    light = measure_light(blur(pixels, 3))
    picture = Image.new("RGB", (SIDE, SIDE), to_color(paper))
    draw = ImageDraw.Draw(picture)
    first, longest, width = ((0.8, 16, 2), (1.0, 26, 2), (0.6, 40, 3))[hand]
    first += random.uniform(-0.15, 0.15)
    for turn, least in ((first, 0.95), (first + 1.5, 0.6), (first + 0.7, 0.3)):
        dx, dy = np.cos(turn), -np.sin(turn)
        for x, y in random.uniform(0, SIDE, (5200 // width, 2)):
            if light[int(y), int(x)] > least - random.uniform(0, 0.25):
                continue
            half = random.uniform(0.4, 1) * longest
            color = 0.75 * pixels[int(y), int(x)] + 0.25 * ink
            draw.line((x - dx * half, y - dy * half, x + dx * half, y + dy * half), to_color(color), width)
    return np.asarray(picture)


def paint_mosaic(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Small square stones, a little turned, in mortar."""
    ink, paper = find_extremes(pixels)
    picture = Image.new("RGB", (SIDE, SIDE), to_color(ink + (paper - ink) * random.uniform(0.1, 0.9)))
    draw = ImageDraw.Draw(picture)
    means = blur(pixels, 4)
    step, loose = ((12, 0.05), (16, 0.12), (21, 0.2))[hand]
    for y in np.arange(step / 2, SIDE + step, step):
        for x in np.arange(step / 2, SIDE + step, step):
            turn, half = random.normal(np.pi / 4, loose), step * random.uniform(0.52, 0.6)
            turns = turn + np.arange(4) * np.pi / 2
            corners = np.stack([x + half * np.cos(turns), y + half * np.sin(turns)], axis=1)
            color = means[min(int(y), SIDE - 1), min(int(x), SIDE - 1)] + random.normal(0, 9)
            draw.polygon(corners.ravel().tolist(), to_color(color))
    return np.asarray(picture)


def find_panes(step: float, random: Random) -> tuple[NDArray[np.intp], Floats]:
    """`[SIDE, SIDE]`: the pane at each place, and how much further the next one's middle is, in pixels.

    A Voronoi diagram of points at random places in the cells of a grid, so that the nearest two are close by.
    """
    cells = int(SIDE / step) + 4
    middles = random.uniform(size=(2, cells, cells)).astype(np.float32)
    bend = 6 * make_noise(60, random)
    x, y = (X + bend) / step + 1, (Y - bend) / step + 1
    left, top = x.astype(int).clip(1, cells - 2), y.astype(int).clip(1, cells - 2)
    panes = np.zeros((SIDE, SIDE), np.intp)
    first, second = np.full((2, SIDE, SIDE), np.inf, np.float32)
    for row, column in ((top + down, left + right) for down in (-1, 0, 1) for right in (-1, 0, 1)):
        distance = np.hypot(column + middles[0, row, column] - x, row + middles[1, row, column] - y)
        second = np.minimum(second, np.maximum(first, distance))
        panes = np.where(distance < first, row * cells + column, panes)
        first = np.minimum(first, distance)
    return panes, (second - first) * step


def paint_glass(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Stained glass: panes of one color each, in lead."""
    step, lead = ((23, 3), (29, 4), (36, 6))[hand]
    panes, beyond = find_panes(step, random)
    sizes = np.bincount(panes.ravel()).clip(1)
    sums = [np.bincount(panes.ravel(), channel.ravel()) for channel in np.moveaxis(pixels, 2, 0)]
    colors = np.stack(sums, axis=1) / sizes[:, None]
    gray = colors.mean(1, keepdims=True)
    shine = 1 + 0.1 * make_noise(40, random) - 0.1 * np.exp(-beyond / 8)
    glass = (gray + 1.35 * (colors - gray))[panes] * shine[:, :, None]
    ink, _ = find_extremes(pixels)
    return finish(np.where(beyond[:, :, None] < lead, 0.5 * ink, glass))


def paint_facets(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Cubist: straight cuts, and between them pieces that are moved, each shaded from one side to the other."""
    cuts, deep = ((7, 70), (11, 110), (16, 140))[hand]
    codes = np.zeros((SIDE, SIDE), np.int64)
    for cut in range(cuts):
        turn, (x, y) = random.uniform(0, np.pi), random.uniform(0.1, 0.9, 2) * SIDE
        codes += ((X - x) * np.cos(turn) + (Y - y) * np.sin(turn) > 0).astype(np.int64) << cut
    _, pieces = np.unique(codes, return_inverse=True)
    pieces = pieces.reshape(SIDE, SIDE)
    count = pieces.max() + 1
    dx, dy = random.normal(0, 22, (2, count)).astype(np.float32)
    moved = pixels[
        (Y + dy[pieces]).clip(0, SIDE - 1).astype(int),
        (X + dx[pieces]).clip(0, SIDE - 1).astype(int),
    ]
    turns = random.uniform(0, 2 * np.pi, count)
    slope = X * np.cos(turns)[pieces] + Y * np.sin(turns)[pieces]
    sizes = np.bincount(pieces.ravel()).clip(1)
    middle = np.bincount(pieces.ravel(), slope.ravel()) / sizes
    shade = ((slope - middle[pieces]) / np.sqrt(sizes)[pieces]).clip(-0.6, 0.6)
    smooth = blur(moved, 2)
    return finish(smooth + deep * shade[:, :, None])


def paint_watercolor(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Washes that run out at the edges and dry darker there, on grainy paper that is left bare at the border."""
    _, paper = find_extremes(pixels)
    wet, bare = ((5, 0.2), (9, 0.32), (14, 0.42))[hand]
    bend = [wet * make_noise(50, random) + 4 * make_noise(14, random) for _ in range(2)]
    moved = pixels[(Y + bend[0]).clip(0, SIDE - 1).astype(int), (X + bend[1]).clip(0, SIDE - 1).astype(int)]
    flat = Image.fromarray(moved).filter(ImageFilter.MedianFilter(7)).quantize(9, dither=Image.Dither.NONE)
    values = np.asarray(flat.convert("RGB"))
    soft, softer = blur(values, 3), blur(values, 10)
    dried = np.minimum(0, soft - softer).mean(2, keepdims=True)
    pool, grain = make_noise(70, random), make_noise(3, random)
    thin = (bare + 0.13 * pool + 0.05 * grain).clip(0.05, 0.9)[:, :, None]
    washed = soft + (paper - soft) * thin + 0.8 * dried
    away = np.minimum.reduce([X, Y, SIDE - 1 - X, SIDE - 1 - Y]) - 18 - 7 * make_noise(24, random)
    painted = (away / 3).clip(0, 1)[:, :, None]
    return finish(paper + (washed - paper) * painted + 3 * grain[:, :, None])


def paint_impasto(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Thick oil: strokes along what they paint, in relief, lit from the upper left."""
    coarse = (0.7, 1, 1.4)[hand]
    smooth = blur(pixels, 6)
    gray = smooth.mean(2)
    down, right = np.gradient(gray)
    flow = np.arctan2(down, right) + np.pi / 2
    flow = np.where(np.hypot(down, right) > 0.8, flow, 1.2 * make_noise(120, random))
    colors = Image.fromarray(smooth.astype(np.uint8))
    height = Image.new("L", (SIDE, SIDE), 128)
    draw, relief = ImageDraw.Draw(colors), ImageDraw.Draw(height)
    for width, count in ((16 * coarse, int(900 / coarse)), (11 * coarse, int(1500 / coarse))):
        for x, y in random.uniform(0, SIDE, (count, 2)):
            turn = flow[int(y), int(x)] + random.normal(0, 0.15)
            half, dx, dy = width * random.uniform(1.2, 2.2), np.cos(turn), np.sin(turn)
            color = smooth[int(y), int(x)] + random.normal(0, 9)
            for bristle in np.arange(-width / 2, width / 2, 2.5):
                left, top = x - dy * bristle, y + dx * bristle
                ends = (left - dx * half, top - dy * half, left + dx * half, top + dy * half)
                draw.line(ends, to_color(color + random.normal(0, 7)), 3)
                relief.line(ends, int(random.uniform(60, 200)), 3)
    lit = np.asarray(height.filter(ImageFilter.GaussianBlur(1)), np.float32)
    light = lit - np.roll(lit, (2, 2), axis=(0, 1))
    return finish(np.asarray(colors, np.float32) + 0.45 * light[:, :, None])


def paint_woodcut(pixels: Pixels, hand: int, random: Random) -> Pixels:
    """Ink on paper: grooves that are cut wider where it is lighter."""
    ink, paper = find_extremes(pixels)
    light = measure_light(blur(pixels, 4))
    turn, period = ((0.0, 9), (0.8, 11.5), (-0.6, 14.5))[hand]
    turn += random.uniform(-0.2, 0.2)
    along = X * np.sin(turn) + Y * np.cos(turn) + 9 * make_noise(110, random) + 1.2 * make_noise(12, random)
    groove = 0.5 + 0.5 * np.sin(2 * np.pi * along / period)
    printed = Image.fromarray(((light < 0.12 + 0.76 * groove) * 255).astype(np.uint8))
    share = blur(np.asarray(printed.filter(ImageFilter.ModeFilter(5))), 0.8)[:, :, None] / 255
    return finish(paper + (ink - paper) * share)


class Style(Protocol):
    def __call__(self, pixels: Pixels, hand: int, random: Random) -> Pixels: ...


STYLES: dict[str, Style] = {
    "facets": paint_facets,
    "glass": paint_glass,
    "hatching": paint_hatching,
    "impasto": paint_impasto,
    "mosaic": paint_mosaic,
    "points": paint_points,
    "poster": paint_poster,
    "watercolor": paint_watercolor,
    "woodcut": paint_woodcut,
}
