"""`byol-edge report`."""

from __future__ import annotations

from pathlib import Path

import click

from .output import needs, note_unread, say


@click.command(short_help="Write a page that shows what encoders make of your images.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A folder of images, searched recursively."
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .html file to write.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Classes of all images or of a handful: a CSV file with columns image, label.  [default: sub-folders]",
)
@click.option("--no-images", is_flag=True, help="Put no pictures into the page, for images that must not travel.")
@click.option("--overwrite", is_flag=True, help="Replace the files at --out.")
def report(
    sources: tuple[str, ...], data: Path, out: Path, labels: Path | None, no_images: bool, overwrite: bool
) -> None:
    """Write a page that shows what encoders make of the images under --data: nearest images, a map, near-duplicates,
    outliers, what INT8 changes, and which encoder to ship.

    A SOURCE is what `compare` takes: a bundle, a run, a start such as imagenet. The details are about the first bundle,
    or the first source without one. The page is one file that opens without a network. Beside it are all figures as
    JSON, and near-duplicates as CSV.

    Example: byol-edge report imagenet runs/photos bundles/photos --data photos/test -o report.html
    """
    with needs("export"):
        from ..report.writing import write_report
    note_unread(data)
    conclusion = write_report(sources, data, out, labels=labels, images=not no_images, overwrite=overwrite)
    say(conclusion.sentence)
    say(conclusion.advice)
    say(f"The report is {out}; its figures are {out.with_suffix('.json')}.")
