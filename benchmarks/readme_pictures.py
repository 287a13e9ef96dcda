"""The two pictures of the README: parts of a report, as a browser shows them.

    byol-edge report imagenet runs/photos bundles/photos --data photos/test -o report.html
    python benchmarks/readme_pictures.py report.html --out docs

Needs `pip install 'byol-edge[browser]'` and an installed Chromium. The first two queries and the first map are shown,
whichever they are. Look at the pictures before you commit them: they show the images of whoever took them.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import click
from PIL import Image
from playwright.sync_api import Page, sync_playwright

WIDTH, QUERIES, QUALITY = 1000, 2, 82


@click.command(help=__doc__)
@click.argument("report", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(report: Path, out: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise click.ClickException("needs an installed Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto(report.resolve().as_uri())
        queries = [shoot(page, f".query >> nth={number}") for number in range(QUERIES)]
        save(stack(queries), out / "neighbors.jpg")
        save(shoot(page, "#panel-1 img"), out / "map.jpg")
        browser.close()


def shoot(page: Page, selector: str) -> Image.Image:
    return Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")


def stack(pictures: list[Image.Image]) -> Image.Image:
    """One above the other, on white."""
    stacked = Image.new(
        "RGB", (max(each.width for each in pictures), sum(each.height + 16 for each in pictures)), "white"
    )
    top = 0
    for each in pictures:
        stacked.paste(each, (0, top))
        top += each.height + 16
    return stacked


def save(picture: Image.Image, file: Path) -> None:
    picture.save(file, quality=QUALITY, optimize=True)
    print(f"{file}: {picture.width} × {picture.height}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
