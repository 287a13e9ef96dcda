"""Draws a dozen images of the kinds that devices meet: python images.py FOLDER"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def draw(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft patches of color with a little noise, as a photograph that is out of focus."""
    patches = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    pixels = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noise = random.normal(0, 6, (height, width, 1)).astype(np.float32)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def write_images(folder: Path) -> None:
    """Writes the images; the same ones on every machine with the same Pillow."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # lies on its side
    draw(random, 4000, 3000).save(folder / "large.jpg", quality=90)
    draw(random, 640, 480).save(folder / "rotated.jpg", exif=rotated)
    draw(random, 500, 375).convert("CMYK").save(folder / "cmyk.jpg")
    draw(random, 333, 501).save(folder / "progressive.jpg", progressive=True, quality=60)
    draw(random, 320, 240).convert("L").save(folder / "gray.jpg")
    transparent = draw(random, 300, 200)
    transparent.putalpha(draw(random, 300, 200).convert("L"))
    transparent.save(folder / "alpha.png")
    draw(random, 200, 300).quantize(32).save(folder / "palette.png")
    Image.fromarray(random.integers(0, 65536, (90, 120), dtype=np.uint16)).save(folder / "gray16.png")
    draw(random, 17, 900).save(folder / "narrow.png")
    draw(random, 400, 300).save(folder / "lossy.webp")
    draw(random, 100, 100).save(folder / "picture.bmp")
    draw(random, 256, 256).save(folder / "picture.tiff")


if __name__ == "__main__":
    write_images(Path(sys.argv[1]))
