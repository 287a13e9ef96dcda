"""`byol-edge nearest`."""

from __future__ import annotations

from pathlib import Path

import click

from ..runtime.contact_sheet import draw_sheet
from ..runtime.errors import OutputExistsError, UsageError
from ..runtime.fidelity import Vectors
from ..runtime.files import whole_file
from ..runtime.identity import check_maker
from ..runtime.nearest import find_neighbors, find_row
from ..runtime.stream import embed_one
from ..runtime.vectors import VectorFile, load_vectors
from .embed import open_source
from .output import note, print_table


@click.command(short_help="The neighbors of one image in a file of vectors: VECTORS, IMAGE → a list, a contact sheet.")
@click.argument("vectors", type=click.Path(path_type=Path))
@click.argument("image")
@click.option("-n", "--number", type=click.IntRange(1, 500), default=10, show_default=True, help="How many neighbors.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Also draw them, beside the image, into this .png file.")
@click.option("--encoder", metavar="SOURCE", help="What made the vectors, for an IMAGE that is not among them.")
@click.option("--overwrite", is_flag=True, help="Replace the file at --sheet.")
def nearest(vectors: Path, image: str, number: int, sheet: Path | None, encoder: str | None, overwrite: bool) -> None:
    """Show which images of a file of vectors are nearest to IMAGE.

    VECTORS is a file that `byol-edge embed` wrote. IMAGE is one of its images, by its path or the end of it, or any
    other, which --encoder then embeds: the bundle, or other SOURCE of `embed`, that the vectors are of.

    Example: byol-edge nearest vectors.npz mug.jpg --encoder bundles/photos --sheet neighbors.png
    """
    if sheet is not None:
        _check_sheet(sheet, overwrite)
    content = load_vectors(vectors)
    row = find_row(content.sources, image)
    query = content.vectors[row] if row is not None else _embed(image, encoder, vectors, content)
    neighbors = find_neighbors(content, query, number, row)
    shown = content.sources[row] if row is not None else image
    cells = [(f"{rank:3}", f"{each.cosine:.3f}", each.source) for rank, each in enumerate(neighbors, 1)]
    print_table(f"Nearest to {shown}, of {len(content.sources)} images:", ("", "cosine", "image"), cells, left=3)
    if sheet is not None:
        picture = draw_sheet(shown, neighbors)
        with whole_file(sheet) as part:
            picture.save(part, "PNG")
        note(f"drawn in {sheet}")


def _check_sheet(sheet: Path, overwrite: bool) -> None:
    if sheet.suffix.lower() != ".png":
        raise UsageError("{sheet}: the picture is written as .png; name the file so", sheet=sheet)
    if sheet.exists() and not overwrite:
        raise OutputExistsError("{sheet} exists already; choose another place, or replace it: {overwrite}",
                                sheet=sheet, overwrite=True)  # fmt: skip


def _embed(image: str, source: str | None, vectors: Path, content: VectorFile) -> Vectors:
    """The vector of an image that is not in the file, by the encoder that made the others."""
    if source is None:
        raise UsageError(
            f"{image} is not one of the images of {vectors}; give {{encoder}}, which made these ({content.model})",
            encoder="SOURCE",
        )
    with open_source(source, {}, content) as opened:
        check_maker(vectors, content, opened)
        return embed_one(opened, image)
