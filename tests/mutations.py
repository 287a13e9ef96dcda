"""Broken image files, made from good ones: cut off at every kind of place, bytes flipped, headers that lie."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

TURNED = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
DATED = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROFILE = DATED[:24] + bytes(12) + DATED[36:]  # without the time, by which the files would differ each second
TEXTS = PngInfo()
TEXTS.add_text("Comment", "a " * 200, zip=True)
FRAMES = {"save_all": True, "append_images": 2}  # so many more, see _encode
# Each format with the modes that it is saved in and the options that change its structure.
SEEDS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "L", {"exif": TURNED}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0, "icc_profile": PROFILE, "exif": TURNED}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {"compress_level": 0}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "I;16", {}),
    ("PNG", "RGB", {"icc_profile": PROFILE, "exif": TURNED, "pnginfo": TEXTS}),
    ("PNG", "RGBA", {**FRAMES, "duration": 40}),
    ("WEBP", "RGB", {"quality": 80}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {**FRAMES, "duration": 40, "icc_profile": PROFILE, "exif": TURNED}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "L", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "jpeg"}),
    ("TIFF", "I;16", {}),
    ("TIFF", "RGB", {**FRAMES, "compression": "tiff_adobe_deflate", "icc_profile": PROFILE}),
    ("GIF", "P", {}),
    ("GIF", "P", {"interlace": 1, "transparency": 3}),
    ("GIF", "P", {**FRAMES, "duration": 40, "loop": 0, "disposal": 2}),
)
A_ROUND = 126  # mutants of each
LIES = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff", b"\x00\x01\x00\x00")


def make_corpus(least: int = 0) -> list[tuple[str, bytes]]:
    """Some 3,000 distinct files, or `least`, each with a name that says what was done to it; always the same ones.

    A longer corpus begins with the shorter ones.
    """
    corpus: dict[bytes, str] = {}
    good = [_encode(*seed) for seed in SEEDS]
    turn = 0
    while not turn or len(corpus) < least:
        for number, (kind, mode, options) in enumerate(SEEDS):
            told = ", ".join(name for name in options)
            for name, content in _mutate(good[number], random.Random(number + turn * len(SEEDS))):
                if content != good[number]:
                    corpus.setdefault(content, f"{kind} {mode} {told} {name}")
        turn += 1
    made = [(name, content) for content, name in corpus.items()]
    return made[:least] if least else made


def _encode(kind: str, mode: str, options: dict[str, object]) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((64, 48))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    if count := options.get("append_images"):
        options = {**options, "append_images": [image.rotate(30 * turn) for turn in range(1, int(str(count)) + 1)]}
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _mutate(good: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    size, header = len(good), min(len(good), 64)
    for _ in range(A_ROUND // 7):
        place = draw.randrange(header)
        yield f"cut at {place}, in the header", good[:place]
        place = draw.randrange(header, size)
        yield f"cut at {place}", good[:place]
        place = draw.randrange(size - min(64, size // 2), size)
        yield f"cut at {place}, near the end", good[:place]
        flipped = bytearray(good)
        places = [draw.randrange(header // 2, size) for _ in range(draw.choice((1, 1, 2, 8, 64)))]
        for place in places:
            flipped[place] ^= 1 << draw.randrange(8)
        yield f"bits flipped at {places[:3]}", bytes(flipped)
        flipped = bytearray(good)
        flipped[draw.randrange(size // 2, size)] ^= 1 << draw.randrange(8)
        yield "a bit flipped late", bytes(flipped)
        place, lie = draw.randrange(header), draw.choice(LIES)
        yield f"{lie.hex()} at {place}", good[:place] + lie + good[place + 4 :]
        place, length = draw.randrange(size), draw.randrange(1, 200)
        change = draw.choice(("doubled", "removed", "zeroed"))
        piece = {"doubled": good[place : place + length] * 2, "removed": b"", "zeroed": bytes(length)}[change]
        yield f"{length} bytes {change} at {place}", good[:place] + piece + good[place + length :]
