"""`byol-edge decode`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..decoding.results import FIGURES
from ..runtime.choosing import AUTO
from ..runtime.errors import UsageError
from ..runtime.interval import Interval
from ..runtime.text import count
from ..runtime.untrusted import read_json
from .output import needs, note, note_unread, print_json, print_table, say, say_pairs

if TYPE_CHECKING:
    from ..decoding.results import Decoding


@click.command(short_help="See what can be read back out of vectors: a decoder, pictures, a table.")
@click.argument("source")
@click.option("--data", type=click.Path(path_type=Path), help="A folder of images, searched recursively.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--variant", default=AUTO, show_default=True, help="fp32, int8, a name, or auto: the default.")
@click.option("--epochs", type=int, help="Passes over the images.  [default: by their number]")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed: same images held out, same decoder.")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="Draw what SOURCE, a folder that `decode` wrote, makes of this file of vectors; --out is a .png file.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def decode(
    source: str,
    data: Path | None,
    out: Path,
    variant: str,
    epochs: int | None,
    seed: int,
    vectors: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """See what the vectors of SOURCE keep of an image, and give away.

    Trains small decoders from vectors to images of 64 px or less on the images under --data, and measures them on a
    tenth of these, held out. SOURCE is what `compare` takes: a bundle, one of its .onnx files, a run, imagenet. Writes
    a folder with pictures (reconstructions, steps between images, means of groups), the figures and the decoder.

    Example: byol-edge decode bundles/photos --data photos/train -o decoded

    With --vectors, draws the images that such a folder's decoder makes of a file of vectors of the same encoder:

    byol-edge decode decoded --vectors vectors.npz -o read.png
    """
    if vectors is not None:
        if data is not None or as_json or epochs is not None or seed or variant != AUTO:
            raise UsageError("--vectors takes a finished decoder: nothing goes with it but --out and --overwrite")
        _decode_vectors(source, out, vectors, overwrite)
        return
    if data is None:
        raise UsageError("give --data DIR, images to learn from, or --vectors FILE with a folder of this command's")
    with needs("export"):
        from ..decoding.decode import decode as train_and_measure
    note_unread(data)
    result = train_and_measure(source, data, out, variant=variant, epochs=epochs, seed=seed, overwrite=overwrite)
    if as_json:
        print_json(result.to_json())
    else:
        print_decoding(result, out)


def _decode_vectors(source: str, out: Path, vectors: Path, overwrite: bool) -> None:
    with needs("export"):
        from ..decoding.stored import decode_vectors
    drawn = decode_vectors(source, vectors, out, overwrite=overwrite)
    say(f"{out}: {count(drawn, 'vector')}, decoded")


def print_decoding(result: Decoding, out: Path) -> None:
    """The table, what its columns are, and the sentence."""
    rows = [
        (
            each.name,
            str(each.numbers or ""),
            _show(each.psnr, 2),
            f"{each.gain.lower:+.2f}…{each.gain.upper:+.2f}" if each.numbers else "",
            _show(each.ssim, 3),
            *([_show(each.knn, 3)] if result.classes else []),
            f"{each.explained:.2f}",
        )
        for each in result.rows
    ]
    titles = ["decoded from", "numbers", "PSNR", "to constant", "SSIM", "explained"]
    if result.classes:
        titles.insert(5, "5-NN")
        rows.append(("the images themselves", "", "", "", "", _show(result.knn, 3), ""))
    passes = f"{result.epochs} passes" if result.epochs > 1 else "one pass"
    print_table(
        f"{count(result.held_out, 'image')} of {result.data} that decoders have not seen, at {result.side} px; "
        f"{passes} over {result.images} others; 95 % intervals:",
        titles,
        rows,
    )
    say(
        "PSNR: how close what is decoded is to the image, in dB; to constant: above the best constant image, paired.\n"
        "SSIM: structural similarity, 1 for equal images. explained: share of the pixels' variance about that image."
        + ("\n5-NN: share of the decoded images that the encoder puts into the right class." if result.classes else "")
    )
    if result.unreadable:
        say(f"{count(len(result.unreadable), 'image')} could not be read and left out.")
    say(result.conclusion)
    note(f"pictures, figures and the decoder are in {out}")


def inspect_decoding(folder: Path, as_json: bool) -> None:
    """What a folder of this command's says of itself; KeyError, TypeError or ValueError where it is damaged."""
    told = read_json(folder / FIGURES)
    if as_json:
        print_json(told)
        return
    say_pairs(
        f"decoding {folder}",
        {
            "encoder": f"{told['source']}, {told['model']} on {told['engine']}",
            "images": f"{told['images']} of {told['data']} at {told['side']} px, and {told['held_out']} held out",
            "decoder": f"{count(told['epochs'], 'epoch')}, seed {told['seed']}",
            "found": told["conclusion"],
            "holds": "pictures of these images, also of some that the decoder learned from",
        },
    )


def _show(value: Interval | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value.mean:.{digits}f} {value.lower:.{digits - 1}f}–{value.upper:.{digits - 1}f}"
