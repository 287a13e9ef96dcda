"""What lets a device prove itself: reference images with their embeddings, and encoded files with their pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.bundle import GOLDEN
from ..runtime.golden import Golden
from ..runtime.preprocessing import Pixels, Preprocessing, prepare

GOLDEN_IMAGES = 16
FOLDER = "golden"
_EXIF_ORIENTATION = 0x0112


def write_golden(
    bundle: Path, images: Pixels, embeddings: dict[str, NDArray[np.float32]], preprocessing: Preprocessing
) -> None:
    """Writes golden.npz and golden/.

    `images`: uint8 `[N, H, W, 3]`. `embeddings`: `[N, D]` by "pytorch" and by each variant's name, as made here.
    """
    (bundle / FOLDER).mkdir()
    pixels = {}
    for name, content in encoded_files().items():
        (bundle / FOLDER / name).write_bytes(content)
        pixels[f"{FOLDER}/{name}"] = prepare(content, preprocessing)
    with (bundle / GOLDEN).open("wb") as file:
        np.savez(file, **Golden(images, embeddings, pixels).to_arrays())


def synthetic_images(count: int, side: int) -> Pixels:
    """Drawn images, no two alike: a disc or a bar on a shaded ground, uint8 `[N, side, side, 3]`."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    images = []
    for number in range(count):
        corners, ink = rng.uniform(0, 255, (2, 3)), rng.uniform(0, 255, 3)
        slope = (x * rng.uniform() + y * rng.uniform())[:, :, None]
        ground = corners[0] * (1 - slope) + corners[1] * slope
        cx, cy, size = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.3)
        disc = np.hypot(x - cx, y - cy) < size
        bar = np.abs((x - cx) * np.cos(6 * size) + (y - cy) * np.sin(6 * size)) < size / 2
        images.append(np.where((bar if number % 2 else disc)[:, :, None], ink, ground).clip(0, 255).astype(np.uint8))
    return np.stack(images)


def encoded_files() -> dict[str, bytes]:
    """Six synthetic files, one for each thing that decoders get wrong: orientation, color, alpha, depth, size."""
    pattern = _pattern(160, 120)
    alpha = pattern.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(pattern.size))
    rotated = Image.Exif()
    rotated[_EXIF_ORIENTATION] = 6
    gray = np.asarray(pattern.convert("L")).astype(np.uint16) * 257
    return {
        "rotated.jpg": _encode(pattern, "JPEG", quality=90, exif=rotated),
        "cmyk.jpg": _encode(pattern.convert("CMYK"), "JPEG", quality=90),
        "alpha.png": _encode(alpha, "PNG"),
        "palette.png": _encode(pattern.quantize(32), "PNG"),
        "gray16.png": _encode(Image.fromarray(gray), "PNG"),
        "large.jpg": _encode(_pattern(1600, 1200), "JPEG", quality=80),
    }


def _pattern(width: int, height: int) -> Image.Image:
    """Gradients, edges and fine stripes, nothing of it symmetric: a turn, a flip or another filter shows."""
    y, x = np.mgrid[0:height, 0:width] / height
    red = 255 * x / x.max()
    green = 255 * (np.hypot(x - 0.4, y - 0.3) < 0.25)
    blue = 127.5 + 127.5 * np.sin(40 * (x + 0.5 * y))
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
