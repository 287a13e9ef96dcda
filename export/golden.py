"""What lets a device prove itself: reference images with their embeddings, and encoded files with their pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..runtime.bundle import GOLDEN
from ..runtime.feature_maps import Maps
from ..runtime.golden import Golden
from ..runtime.preprocessing import Pixels, Preprocessing, prepare

GOLDEN_IMAGES = 16
# Shapes in a synthetic image.
LEAVES = 300
FOLDER = "golden"
_EXIF_ORIENTATION = 0x0112


def write_golden(
    bundle: Path, images: Pixels, embeddings: dict[str, NDArray[np.float32]], maps: Maps, preprocessing: Preprocessing
) -> None:
    """Writes golden.npz and golden/.

    `images`: uint8 `[N, H, W, 3]`. `embeddings`: `[N, D]` by "pytorch" and by each variant's name, as made here.
    `maps`: PyTorch's feature maps of the first images.
    """
    (bundle / FOLDER).mkdir()
    pixels = {}
    for name, content in encoded_files().items():
        (bundle / FOLDER / name).write_bytes(content)
        pixels[f"{FOLDER}/{name}"] = prepare(content, preprocessing)
    with (bundle / GOLDEN).open("wb") as file:
        np.savez(file, **Golden(images, embeddings, pixels, maps).to_arrays())


def synthetic_images(count: int, side: int) -> Pixels:
    """Drawn images, no two alike and the same every time, uint8 `[N, side, side, 3]`.

    Discs and boxes of all sizes lie over each other (dead leaves), with noise whose amplitude falls with frequency: in
    this they are like photographs, so that a network for photographs takes them for none too unlikely. On plain shapes,
    INT8 of EfficientNet-Lite0 had a cosine of 0.96 to PyTorch, on these 0.998.
    """
    rng = np.random.default_rng(0)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequencies[0, 0] = 1
    images = []
    for _ in range(count):
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequencies).real
        strength = rng.uniform(6, 30)
        pixels = np.asarray(_draw_leaves(side, rng)) + (strength * noise / noise.std())[:, :, None]
        images.append(pixels.clip(0, 255).astype(np.uint8))
    return np.stack(images)


def _draw_leaves(side: int, rng: np.random.Generator) -> Image.Image:
    """Shapes over each other, the largest at the bottom, drawn at twice the size for smooth edges."""
    width = 2 * side
    image = Image.new("RGB", (width, width))
    draw = ImageDraw.Draw(image)
    base, spread = rng.uniform(0, 255, 3), rng.uniform(20, 90)
    radii = (0.02 * width * rng.uniform(0.001, 1, LEAVES) ** -0.7).clip(max=width / 2)
    for radius in np.sort(radii)[::-1]:
        x, y = rng.uniform(0, width, 2)
        height = radius * rng.uniform(0.4, 1)
        color = base + rng.normal(0, spread) + rng.normal(0, spread / 2, 3)
        shape = draw.ellipse if rng.uniform() < 0.6 else draw.rectangle
        shape((x - radius, y - height, x + radius, y + height), fill=tuple(color.clip(0, 255).astype(int).tolist()))
    return image.resize((side, side), Image.Resampling.BICUBIC)


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
