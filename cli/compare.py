"""`byol-edge compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.interval import Interval
from ..runtime.text import count
from .output import needs, note_unread, print_json, print_table, say

if TYPE_CHECKING:
    from ..evaluate.comparison import Compared, Comparison


@click.command(short_help="Compare encoders on your images, and name the one to ship.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A folder of images, searched recursively."
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Classes of all images or of a handful: a CSV file with columns image, label.  [default: sub-folders]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def compare(sources: tuple[str, ...], data: Path, labels: Path | None, as_json: bool) -> None:
    """Compare encoders on the images under --data, and name the one to ship.

    A SOURCE is raw (raw pixels), a bundle, one of its .onnx files, or what `export` takes by name or path: a run,
    imagenet, package:NAME, timm:NAME. Where no classes are known, a figure that needs none decides.

    Example: byol-edge compare raw imagenet bundles/photos --data photos/test
    """
    with needs("export"):
        from ..evaluate.compare import compare_encoders
    note_unread(data)
    result = compare_encoders(sources, data, labels=labels)
    if as_json:
        print_json(result.to_json())
    else:
        print_comparison(result, data)


def print_comparison(result: Comparison, data: Path) -> None:
    """A table with a line for each encoder, and the sentence."""
    from ..evaluate.comparison import CONSISTENCY, FEW_LABELS, KNN
    from ..evaluate.scorer import FIGURES

    figures = [each for each in FIGURES if any(each.name in encoder.accuracy for encoder in result.encoders)]
    few = result.figure == FEW_LABELS
    own = ["with labels"] if few else [figure.title for figure in figures]
    titles = ["", "px", "views", *own, "to best", "D", "MB", "ms", "cosine"]
    rows = [
        _cells(each, [each.deciding] if few else [each.accuracy.get(figure.name) for figure in figures])
        for each in result.encoders
    ]
    what = f"{result.classes} classes" if result.classes else "no classes known"
    print_table(f"{count(result.images, 'image')} of {data}, {what}; 95 % intervals:", titles, rows)
    decides = {KNN: "5-NN", CONSISTENCY: "view consistency", FEW_LABELS: "the figure with labels"}[result.figure]
    if few:
        say(
            "with labels: the mean of view consistency and the average precision of the labeled images among each\n"
            "other. They are too few to measure an accuracy."
        )
    say(
        "views: view consistency, how much of an image is left in other views of it, 0 to 1. to best: difference to\n"
        f"the best by {decides}, paired; an interval that reaches 0 is level. D: numbers in a vector. MB: of the\n"
        "model. ms: per image, one at a time, here; PyTorch runs what is not exported. cosine: to the bundle's FP32."
    )
    if any(each.timing and each.timing.spreads for each in result.encoders):
        say("Times vary widely: other work on this machine, or a CPU that slows down. Try again when it is idle.")
    if result.unreadable:
        say(f"{count(len(result.unreadable), 'image')} could not be read and left out for all.")
    say(result.advice)


def _cells(encoder: Compared, accuracy: Sequence[Interval | None]) -> tuple[str, ...]:
    gap = encoder.gap
    return (
        encoder.name,
        str(encoder.image_size),
        *(_with_interval(each) for each in (encoder.consistency, *accuracy)),
        f"{gap.lower:+.3f}…{gap.upper:+.3f}" if gap else "best",
        str(encoder.embedding_size),
        f"{encoder.size / 1e6:.2f}" if encoder.size is not None else "",
        f"{encoder.timing.median:.2f}" if encoder.timing else "",
        f"{encoder.fidelity:.5f}" if encoder.fidelity is not None else "",
    )


def _with_interval(value: Interval | None) -> str:
    return f"{value.mean:.3f} {value.lower:.2f}–{value.upper:.2f}" if value else "–"
