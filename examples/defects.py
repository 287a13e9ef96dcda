"""Finds defects after seeing good images alone: how far a patch is from all patches of good images.

    byol-edge export imagenet --features blocks.2,blocks.4 --int8 --calibration good/ --out bundles/parts
    python examples/defects.py bundles/parts good/ test/ sheet.png

The idea is PatchCore's (arXiv 2106.08265). A patch is what the feature maps say of a place and its neighbors. Of the
good images, patches that are far from each other are kept, whitened. An image's score is how far its worst patches, one
in a hundred, are from the nearest ones that were kept. `test/` has images, or folders of them, of which the one named
`good` has no defects; the AUROC is the chance that an image with a defect has a higher score than a good one. The sheet
shows the highest scores, each image beside its distances. It takes numpy and the runtime alone: a device can do it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from byol_edge.runtime import Encoder, find_images
from byol_edge.runtime.preprocessing import prepare
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]

BATCH = 16
# Of the good images' patches, so many are drawn at random, and so many of these are kept.
DRAWN, KEPT = 20_000, 2_000
# The share of an image's patches that makes its score, and the share of the mean variance that counts as noise.
WORST, NOISE = 0.01, 0.01
SHOWN, SIDE, GAP, LINE = 12, 160, 8, 16


def blend(length: int, wanted: int) -> Floats:
    """`[wanted, length]`: means over three neighbors, then linear interpolation to another length."""
    places = np.arange(length)
    means = (np.abs(places[:, None] - places) <= 1).astype(np.float32)
    means /= means.sum(1, keepdims=True)
    wanted_places = ((np.arange(wanted) + 0.5) * length / wanted - 0.5).clip(0, length - 1)
    weights = (1 - np.abs(wanted_places[:, None] - places)).clip(0)
    return (weights @ means).astype(np.float32)


def embed_patches(encoder: Encoder, paths: list[Path]) -> Iterator[Floats]:
    """For each image `[H, W, C]`: the maps, averaged over 3×3 places, on the grid of the finest, side by side."""
    height, width = (max(lengths) for lengths in zip(*(each.shape[1:] for each in encoder.features), strict=True))
    for start in range(0, len(paths), BATCH):
        maps = encoder.maps(paths[start : start + BATCH])
        finest = [
            blend(each.height, height) @ maps[each.name] @ blend(each.width, width).T for each in encoder.features
        ]
        yield from np.concatenate(finest, axis=1).transpose(0, 2, 3, 1)


def find_whitening(patches: Floats) -> Floats:
    """`[C, C]`: what patches are multiplied by, so that they vary alike in all directions."""
    values, directions = np.linalg.eigh(np.cov(patches.T))
    return (directions / np.sqrt(values + NOISE * values.mean())).astype(np.float32)


def choose_patches(patches: Floats, count: int) -> Floats:
    """The greedy coreset: each patch chosen is the one furthest from all that were chosen before."""
    distances = np.full(len(patches), np.inf, np.float32)
    chosen = [0]
    while len(chosen) < min(count, len(patches)):
        distances = np.minimum(distances, np.square(patches - patches[chosen[-1]]).sum(1))
        chosen.append(int(distances.argmax()))
    return patches[chosen]


def measure_distances(patches: Floats, memory: Floats) -> Floats:
    """`[H, W]`: how far each patch of `[H, W, C]` is from the nearest of `[M, C]`."""
    rows = patches.reshape(-1, patches.shape[2])
    squares = np.square(rows).sum(1)[:, None] - 2 * rows @ memory.T + np.square(memory).sum(1)
    return np.sqrt(squares.min(1).clip(0)).reshape(patches.shape[:2])


def know(encoder: Encoder, paths: list[Path]) -> tuple[Floats, Floats]:
    """What good images look like: the whitening of their patches, and those of them to compare with, whitened."""
    random = np.random.default_rng(0)
    share = -(-DRAWN // len(paths))
    drawn = [
        random.permutation(patches.reshape(-1, patches.shape[2]))[:share] for patches in embed_patches(encoder, paths)
    ]
    patches = np.concatenate(drawn)
    whitening = find_whitening(patches)
    return whitening, choose_patches(patches @ whitening, KEPT)


def score(heat: Floats) -> float:
    worst = max(1, int(WORST * heat.size))
    return float(np.sort(heat, axis=None)[-worst:].mean())


def measure_auroc(good: list[float], bad: list[float]) -> float:
    """The chance that one of `bad` is higher than one of `good`; equal ones count half."""
    ranked = np.sort(good)
    below = np.searchsorted(ranked, bad, "left") + np.searchsorted(ranked, bad, "right")
    return float(below.mean() / 2 / len(good))


def draw_sheet(encoder: Encoder, paths: list[Path], heats: list[Floats]) -> Image.Image:
    """The images with the highest scores, each beside its distances: dark is near, bright is far."""
    first = sorted(range(len(paths)), key=lambda row: -score(heats[row]))[:SHOWN]
    low, high = np.percentile(heats, 50), max(heat.max() for heat in heats)
    columns, wide, tall = 3, 2 * SIDE + GAP, SIDE + LINE + GAP
    sheet = Image.new("RGB", (columns * (wide + GAP) + GAP, -(-len(first) // columns) * tall + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, row in enumerate(first):
        left, top = GAP + place % columns * (wide + GAP), GAP + place // columns * tall
        bright = (255 * (heats[row] - low) / max(high - low, 1e-12)).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(prepare(paths[row], encoder.preprocessing))  # as the network sees it
        sheet.paste(picture.resize((SIDE, SIDE)), (left, top))
        sheet.paste(Image.fromarray(bright).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left + SIDE, top))
        draw.text((left, top + SIDE + 2), f"{score(heats[row]):.2f}  {'/'.join(paths[row].parts[-2:])}", fill="black")
    return sheet


def main(bundle: str, good: str, test: str, sheet: str) -> None:
    encoder = Encoder(bundle)
    if not encoder.features:
        sys.exit(f"{bundle} gives no feature maps; export it with --features")
    known, tested = find_images(good), find_images(test)
    whitening, memory = know(encoder, known)
    heats = [measure_distances(patches @ whitening, memory) for patches in embed_patches(encoder, tested)]
    scores = [score(heat) for heat in heats]
    draw_sheet(encoder, tested, heats).save(sheet)
    print(f"{sheet}: the highest scores of {len(tested)} images; {len(memory)} patches of {len(known)} good ones")
    fine = [score for score, path in zip(scores, tested, strict=True) if path.parent.name == "good"]
    faulty = [score for score, path in zip(scores, tested, strict=True) if path.parent.name != "good"]
    if fine and faulty:
        print(f"AUROC {measure_auroc(fine, faulty):.3f}, of {len(faulty)} images with defects and {len(fine)} without")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
