"""Pictures of five subjects in nine styles by three hands each, drawn: STYLE-HAND/SUBJECT-NN.png, 256 px.

    python benchmarks/drawn_art.py --out DIR [--count 3] [--photographs FOLDER]

Every picture has a layout, a palette and an order of colors of its own, drawn at random with a fixed seed; a palette
serves every style. A picture is kept as a part of what was painted, three quarters of its side or more, since those of
a collection are not at one scale either. With --photographs, a folder with one folder per class, the subjects are its
five largest classes, and each picture is another photograph. Needs numpy and Pillow alone. What is drawn is free for
any use.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from art_styles import HANDS, SIDE, STYLES, Floats, Pixels, Random, X, Y, finish, make_noise
from byol_edge.runtime import Preprocessing, find_images, prepare
from PIL import Image, ImageColor, ImageDraw

KEPT = SIDE // 2
# Each from dark to light.
PALETTES = (
    "#1d2b4f #3f5e8c #c8553d #e9a23b #8fb8a8 #f5ead0",
    "#2b1e2f #6b3a5b #b5546b #e58b6d #f2c48d #faf0dc",
    "#14342b #2f6b4f #7da453 #e07a3f #d9b44a #f4efd9",
    "#26303a #a8574b #56707f #93a8ac #c9b79c #efe6d5",
    "#3b1f12 #8a3b1c #cf6a2c #5f8f8b #eab04f #f6e7c6",
    "#101c3d #2a4f9c #e2571e #4d9bd1 #f0c419 #fbf6e6",
    "#33224a #6d4a9c #a98bd0 #7cc0b5 #e8a5b8 #f5eef5",
    "#2a2f1a #626b2d #b4653a #a8a352 #d6c58a #f1ecd6",
    "#10323a #1f6f78 #d9534f #4db6a4 #f2b8a0 #f7f0e3",
    "#2d1b1b #7a2a2a #4a6f8a #c0392b #e8b04b #f4e9d8",
)


@dataclass(frozen=True)
class Shape:
    """A polygon `[K, 2]`, in shares of the picture's side, and the place of its color in the palette."""

    outline: Floats
    color: int


def box(left: float, top: float, right: float, bottom: float) -> Floats:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def oval(x: float, y: float, width: float, height: float, start: float = 0, end: float = 1) -> Floats:
    """An ellipse by its radii, or the part of it between two shares of a turn, clockwise from the right."""
    turns = 2 * np.pi * np.linspace(start, end, 48)
    return np.stack([x + width * np.cos(turns), y + height * np.sin(turns)], axis=1).astype(np.float32)


def ridge(level: float, rough: float, random: Random) -> Floats:
    """All that lies below a line of hills."""
    x = np.linspace(0, 1, 64)
    waves = sum(np.sin(2 * np.pi * (k * x * random.uniform(0.7, 1.3) + random.uniform())) / k for k in (1, 2, 4, 7))
    line = np.stack([x, level + rough * waves], axis=1)
    return np.concatenate([line, [(1, 1), (0, 1)]]).astype(np.float32)


def profile(x: float, bottom: float, *widths: tuple[float, float]) -> Floats:
    """A body turned about an upright axis, such as a bottle: half its width at heights above its bottom."""
    right = [(x + width, bottom - height) for height, width in widths]
    left = [(x - width, bottom - height) for height, width in reversed(widths)]
    return np.array(right + left, np.float32)


def draw_tree(x: float, foot: float, size: float, trunk: int, crown: int, random: Random) -> list[Shape]:
    stem = Shape(box(x - 0.06 * size, foot - 0.6 * size, x + 0.06 * size, foot), trunk)
    if random.uniform() < 0.4:
        cone = [(x, foot - 1.3 * size), (x + 0.3 * size, foot - 0.25 * size), (x - 0.3 * size, foot - 0.25 * size)]
        return [stem, Shape(np.array(cone, np.float32), crown)]
    return [stem, Shape(oval(x, foot - 0.85 * size, 0.33 * size, 0.42 * size), crown)]


def draw_landscape(random: Random) -> list[Shape]:
    sky, sun, *grounds = random.permutation(6).tolist()
    shapes = [Shape(box(0, 0, 1, 1), sky)]
    shapes.append(
        Shape(oval(random.uniform(0.15, 0.85), random.uniform(0.12, 0.3), *[random.uniform(0.05, 0.1)] * 2), sun)
    )
    level = random.uniform(0.35, 0.5)
    for number in range(random.integers(2, 5)):
        shapes.append(Shape(ridge(level, random.uniform(0.02, 0.09), random), grounds[number]))
        level += random.uniform(0.12, 0.2)
    for _ in range(random.integers(1, 6)):
        place = random.uniform(0.05, 0.95), random.uniform(0.7, 0.98)
        shapes += draw_tree(
            *place, random.uniform(0.15, 0.3), grounds[3], sun if random.uniform() < 0.3 else sky, random
        )
    return shapes


def draw_still_life(random: Random) -> list[Shape]:
    wall, table, *things = random.permutation(6).tolist()
    edge = random.uniform(0.5, 0.65)
    shapes = [Shape(box(0, 0, 1, 1), wall), Shape(box(0, edge, 1, 1), table)]
    for number, x in enumerate(random.permutation(np.linspace(0.15, 0.85, random.integers(3, 6)))):
        color, bottom, size = things[number % 4], edge + random.uniform(0.05, 0.28), random.uniform(0.8, 1.2)
        kind = random.integers(3)
        if kind == 0:  # a bottle
            widths = ((0, 0.07), (0.24, 0.075), (0.32, 0.025), (0.44, 0.028))
            shapes.append(Shape(profile(x, bottom, *[(size * up, size * wide) for up, wide in widths]), color))
        elif kind == 1:  # a bowl with fruit
            for offset in (-0.06, 0.05, 0):
                shapes.append(
                    Shape(
                        oval(x + offset * size, bottom - 0.13 * size, 0.055 * size, 0.055 * size),
                        things[(number + 1) % 4],
                    )
                )
            shapes.append(Shape(oval(x, bottom - 0.12 * size, 0.15 * size, 0.12 * size, 0, 0.5), color))
        else:  # an apple and a pear
            shapes.append(Shape(oval(x, bottom - 0.07 * size, 0.08 * size, 0.075 * size), color))
            shapes.append(Shape(oval(x + 0.12, bottom - 0.03, 0.06 * size, 0.06 * size), things[(number + 2) % 4]))
            shapes.append(Shape(oval(x + 0.12, bottom - 0.09, 0.035 * size, 0.06 * size), things[(number + 2) % 4]))
    return shapes


def draw_house(random: Random) -> list[Shape]:
    sky, ground, *colors = random.permutation(6).tolist()
    level = random.uniform(0.68, 0.8)
    shapes = [Shape(box(0, 0, 1, 1), sky), Shape(ridge(level, 0.01, random), ground)]
    for number, left in enumerate(np.linspace(0.05, 0.62, random.integers(1, 4))):
        wall, roof, hole = colors[number % 4], colors[(number + 1) % 4], colors[(number + 2) % 4]
        left, wide, top = left + random.uniform(0, 0.06), random.uniform(0.24, 0.36), level - random.uniform(0.2, 0.38)
        right, bottom, middle = left + wide, level + random.uniform(0.02, 0.12), left + wide / 2
        shapes.append(Shape(box(left, top, right, bottom), wall))
        gable = [(left - 0.03, top), (middle, top - random.uniform(0.1, 0.2)), (right + 0.03, top)]
        shapes.append(Shape(np.array(gable, np.float32), roof))
        shapes.append(Shape(box(middle - 0.035, bottom - 0.14, middle + 0.035, bottom), hole))
        for x in (left + 0.06, right - 0.06):
            shapes.append(Shape(box(x - 0.03, top + 0.05, x + 0.03, top + 0.12), hole))
    return shapes + draw_tree(random.uniform(0.1, 0.9), random.uniform(0.85, 0.97), 0.25, colors[0], colors[3], random)


def draw_figure(random: Random) -> list[Shape]:
    ground, coat, skin, hair, collar, _ = random.permutation(6).tolist()
    x, y, size = random.uniform(0.42, 0.58), random.uniform(0.36, 0.44), random.uniform(0.85, 1.15)
    dark = 5 if skin < 2 else 0
    shapes = [Shape(box(0, 0, 1, 1), ground)]
    shapes.append(Shape(oval(x, y - 0.02, 0.19 * size, random.uniform(0.2, 0.36) * size), hair))
    shapes.append(Shape(oval(x, 1.02, 0.38 * size, 0.4), coat))
    shapes.append(Shape(box(x - 0.06 * size, y + 0.1, x + 0.06 * size, y + 0.3 * size), skin))
    shapes.append(Shape(oval(x, y + 0.3 * size, 0.1 * size, 0.05), collar))
    shapes.append(Shape(oval(x, y, 0.145 * size, 0.2 * size), skin))
    for side in (-1, 1):
        shapes.append(Shape(oval(x + side * 0.06 * size, y - 0.03 * size, 0.022 * size, 0.014 * size), dark))
    shapes.append(Shape(oval(x, y + 0.11 * size, 0.045 * size, 0.016 * size), 2 if skin != 2 else 0))
    nose = [(x, y - 0.01 * size), (x + 0.025 * size, y + 0.06 * size), (x - 0.005, y + 0.06 * size)]
    shapes.append(Shape(np.array(nose, np.float32), dark))
    if random.uniform() < 0.5:
        shapes.append(Shape(oval(x, y - 0.12 * size, 0.15 * size, 0.12 * size, 0.5, 1), hair))
    else:
        shapes.append(Shape(box(x - 0.24 * size, y - 0.16 * size, x + 0.24 * size, y - 0.12 * size), coat))
        shapes.append(Shape(box(x - 0.13 * size, y - 0.32 * size, x + 0.13 * size, y - 0.14 * size), coat))
    return shapes


def draw_abstract(random: Random) -> list[Shape]:
    shapes = [Shape(box(0, 0, 1, 1), int(random.integers(6)))]
    for number in range(random.integers(9, 15)):
        size, color = random.uniform(0.08, 0.3) * (1 if number < 6 else 0.6), int(random.integers(6))
        x, y, turn = *random.uniform(0.05, 0.95, 2), random.uniform(0, 1)
        corners = {0: 48, 1: 4, 2: 3, 3: 4}[kind := int(random.integers(4))]
        turns = 2 * np.pi * (turn + np.arange(corners) / corners)
        flat = 0.15 if kind == 3 else 1  # a bar
        across, along = size * flat * np.cos(turns), size * np.sin(turns)
        turned = np.cos(turn) * across - np.sin(turn) * along, np.sin(turn) * across + np.cos(turn) * along
        shapes.append(Shape(np.stack([x + turned[0], y + turned[1]], axis=1).astype(np.float32), color))
    return shapes


SUBJECTS: dict[str, Callable[[Random], list[Shape]]] = {
    "abstract": draw_abstract,
    "figure": draw_figure,
    "house": draw_house,
    "landscape": draw_landscape,
    "still_life": draw_still_life,
}


def color_in(shapes: list[Shape], random: Random) -> Pixels:
    """The shapes, one over the other, each shaded from one side to the other."""
    palette = np.array([ImageColor.getrgb(name) for name in random.choice(PALETTES).split()], np.float32)
    palette += random.normal(0, 8, palette.shape)
    pixels = np.zeros((SIDE, SIDE, 3), np.float32)
    for shape in shapes:
        mask = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(mask).polygon((shape.outline * SIDE).ravel().tolist(), 255)
        turn = random.uniform(0, 2 * np.pi)
        shade = (X / SIDE - 0.5) * np.cos(turn) + (Y / SIDE - 0.5) * np.sin(turn)
        color = palette[shape.color] * (1 + 0.35 * shade[:, :, None])
        pixels = np.where(np.asarray(mask)[:, :, None] > 0, color, pixels)
    return finish(pixels * (1 + 0.05 * make_noise(90, random)[:, :, None]))


def draw_set(out: Path, count: int) -> None:
    for subject, draw in SUBJECTS.items():
        for number in range(count):
            for folder, paint, random in list_hands(out, subject, number):
                save(paint(color_in(draw(random), random)), random, folder / f"{subject}-{number:02}.png")


def paint_photographs(source: Path, out: Path, count: int) -> None:
    """Each picture is another photograph, of the five classes that have most."""
    classes = {each.name: find_images(each) for each in source.iterdir() if each.is_dir()}
    for subject in sorted(classes, key=lambda name: -len(classes[name]))[: len(SUBJECTS)]:
        paths = iter(np.random.default_rng(0).permutation(np.array(classes[subject], object)))
        for number in range(count):
            for folder, paint, random in list_hands(out, subject, number):
                pixels = prepare(next(paths), Preprocessing(SIDE))
                save(paint(pixels), random, folder / f"{subject}-{number:02}.png")


def list_hands(out: Path, *key: object) -> Iterator[tuple[Path, Callable[[Pixels], Pixels], Random]]:
    """For each style and hand: its folder, how it paints, and a generator that depends on these and `key` alone."""
    for style, paint in STYLES.items():
        for hand in range(HANDS):
            random = np.random.default_rng(zlib.crc32(repr((style, hand, *key)).encode()))
            yield out / f"{style}-{hand + 1}", partial(paint, hand=hand, random=random), random


def save(pixels: Pixels, random: Random, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    side = random.uniform(0.75, 1) * SIDE
    left, top = random.uniform(0, SIDE - side, 2)
    part = (left, top, left + side, top + side)
    Image.fromarray(pixels).resize((KEPT, KEPT), Image.Resampling.LANCZOS, part).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--count", type=int, default=3, help="pictures of each subject by each hand")
    parser.add_argument("--photographs", type=Path)
    asked = parser.parse_args()
    if asked.photographs:
        paint_photographs(asked.photographs, asked.out, asked.count)
    else:
        draw_set(asked.out, asked.count)
    print(f"{asked.out}: {len(find_images(asked.out))} pictures in {len(STYLES)} styles, by {HANDS} hands each")


if __name__ == "__main__":
    main()
