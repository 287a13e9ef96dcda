"""Feature maps against defects: the AUROC of examples/defects.py, by each of several bundles, and by raw pixels.

    pip install -e '.[all]'
    python benchmarks/defects_by_patches.py BUNDLE... --out DIR [--steel DIR]

The bundles have to give feature maps (`byol-edge export --features`); of each, FP32 and INT8 for ONNX Runtime are
measured. On three drawn surfaces (brushed, woven, cast; 60 good images to know, 60 others and 60 with a drawn scratch
or spot to tell apart), and, with --steel, on a folder with train/<kind>/ and test/<kind>/ (NEU's surface defects):
there, one kind is what is known, and a fifth of the images of the other kinds is to be told from it. Beside the AUROC
by patches stands that of whole embeddings: the distance to the nearest of a known image. A table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from byol_edge.runtime import Encoder, Preprocessing, find_images
from byol_edge.runtime.feature_maps import FeatureMap, Maps
from byol_edge.runtime.preprocessing import prepare_all
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from defects import embed_patches, know, measure_auroc, measure_distances, score

SURFACES = ("brushed", "woven", "cast")
SIDE, KNOWN, TESTED = 256, 60, 60
# Of pixels, a patch is a block of this many; of a kind of steel, so many images are known.
BLOCK, KNOWN_STEEL = 8, 100


@dataclass(frozen=True)
class Task:
    """Images that are known, and such to tell apart."""

    known: list[Path]
    good: list[Path]
    faulty: list[Path]


class RawPixels:
    """Blocks of pixels as a feature map."""

    features = (FeatureMap("pixels", 3 * BLOCK**2, 224 // BLOCK, 224 // BLOCK),)

    def maps(self, paths: list[Path]) -> Maps:
        pixels = prepare_all(paths, Preprocessing(224)).astype(np.float32)
        rows = 224 // BLOCK
        blocks = pixels.reshape(len(paths), rows, BLOCK, rows, BLOCK, 3).transpose(0, 2, 4, 5, 1, 3)
        return {"pixels": np.ascontiguousarray(blocks).reshape(len(paths), -1, rows, rows)}

    def embed(self, paths: list[Path]) -> NDArray[np.float32]:
        pixels = prepare_all(paths, Preprocessing(32)).reshape(len(paths), -1).astype(np.float32)
        return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)


def draw_surface(kind: str, random: np.random.Generator) -> NDArray[np.float64]:
    """Gray values `[SIDE, SIDE]` of a surface that has no defects, in a light of its own."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    noise = random.normal(size=(SIDE, SIDE))
    fy, fx = np.abs(np.fft.fftfreq(SIDE, 1 / SIDE))[:, None], np.abs(np.fft.fftfreq(SIDE, 1 / SIDE))[None]

    def weigh(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        weighted = np.fft.ifft2(np.fft.fft2(noise) * weights).real
        return weighted / weighted.std()

    if kind == "brushed":  # streaks
        texture = weigh(np.exp(-((fx / 4) ** 2) - (fy / 60) ** 2))
    elif kind == "woven":  # threads, not quite straight
        period, turn, bend = random.uniform(9, 11), random.uniform(-0.1, 0.1), weigh(np.exp(-(fx**2 + fy**2) / 36))
        u, v = (x + turn * y) * SIDE / period + 0.15 * bend, (y - turn * x) * SIDE / period + 0.15 * bend
        texture = np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v) + 0.3 * noise
    else:  # grains
        texture = weigh(np.exp(-(((np.hypot(fx, fy) - 20) / 10) ** 2)))
    light = random.uniform(105, 150) + random.uniform(-25, 25) * (x - 0.5) + random.uniform(-25, 25) * (y - 0.5)
    return light + 14 * texture / texture.std() + random.normal(0, 3, (SIDE, SIDE))


def draw_defect(random: np.random.Generator) -> NDArray[np.float64]:
    """What a scratch or a spot adds to gray values `[SIDE, SIDE]`: 25 to 60, or as much less."""
    mask = Image.new("L", (4 * SIDE, 4 * SIDE))
    x, y = random.uniform(0.1, 0.9, 2) * 4 * SIDE
    if random.uniform() < 0.5:
        turn, half = random.uniform(0, np.pi), random.uniform(0.05, 0.175) * 4 * SIDE
        dx, dy = np.cos(turn) * half, np.sin(turn) * half
        ImageDraw.Draw(mask).line((x - dx, y - dy, x + dx, y + dy), 255, int(random.uniform(5, 11)))
    else:
        turns = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        radii = random.uniform(0.015, 0.045) * 4 * SIDE * random.uniform(0.6, 1.3, 10)
        outline = np.stack([x + radii * np.cos(turns), y + radii * np.sin(turns)], axis=1)
        ImageDraw.Draw(mask).polygon(outline.ravel().tolist(), 255)
    soft = mask.resize((SIDE, SIDE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.7))
    return np.asarray(soft) / 255 * random.choice([-1, 1]) * random.uniform(25, 60)


def draw_task(kind: str, folder: Path) -> Task:
    random = np.random.default_rng(SURFACES.index(kind))
    paths: dict[str, list[Path]] = {}
    for name, number in (("known", KNOWN), ("good", TESTED), ("faulty", TESTED)):
        (folder / kind / name).mkdir(parents=True, exist_ok=True)
        paths[name] = [folder / kind / name / f"{place:03}.png" for place in range(number)]
        for path in paths[name]:
            gray = draw_surface(kind, random) + (draw_defect(random) if name == "faulty" else 0)
            Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(path)
    return Task(**paths)


def steel_task(kind: str, steel: Path) -> Task:
    others = [each for each in sorted((steel / "test").iterdir()) if each.name != kind]
    return Task(
        find_images(steel / "train" / kind)[:KNOWN_STEEL],
        find_images(steel / "test" / kind),
        [path for each in others for path in find_images(each)[::5]],
    )


def score_patches(encoder: Encoder | RawPixels, task: Task) -> float:
    embedder = cast("Encoder", encoder)  # raw pixels have what is used of it
    whitening, memory = know(embedder, task.known)
    good, faulty = (
        [score(measure_distances(each @ whitening, memory)) for each in embed_patches(embedder, paths)]
        for paths in (task.good, task.faulty)
    )
    return measure_auroc(good, faulty)


def score_embeddings(encoder: Encoder | RawPixels, task: Task) -> float:
    known = encoder.embed(task.known)
    good, faulty = ((1 - encoder.embed(paths) @ known.T).min(1).tolist() for paths in (task.good, task.faulty))
    return measure_auroc(good, faulty)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steel", type=Path)
    asked = parser.parse_args()
    tasks = {kind: draw_task(kind, asked.out) for kind in SURFACES}
    if asked.steel:
        tasks |= {kind.name: steel_task(kind.name, asked.steel) for kind in sorted((asked.steel / "train").iterdir())}
    print(f"| | {' | '.join(tasks)} |\n|---|{'---|' * len(tasks)}")
    encoders: list[tuple[str, Encoder | RawPixels]] = [("raw pixels", RawPixels())]
    for bundle in asked.bundles:
        encoders += [(f"{Path(bundle).name}, {name}", Encoder(bundle, name)) for name in ("fp32.onnx", "int8.onnx")]
    for name, encoder in encoders:
        cells = [
            f"{score_patches(encoder, task):.3f} ({score_embeddings(encoder, task):.3f})" for task in tasks.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
