"""`byol-edge embed`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..runtime.encoder import BATCH_SIZE, MOST_THREADS, Encoder
from ..runtime.errors import ImageError, OutputExistsError, UsageError
from ..runtime.images import find_images
from ..runtime.vectors import VectorFile, save_vectors
from .output import Bar, note, say


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which variant runs on which engine."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(1, MOST_THREADS),
            help="CPU threads.  [default: all available]",
        ),
        click.option("--backend", default="auto", show_default=True, help="onnxruntime, openvino or auto."),
        click.option("--variant", default="auto", show_default=True, help="fp32, int8, a name, or auto: the default."),
    ):
        command = option(command)
    return command


@click.command(short_help="Embed a folder of images: BUNDLE, IMAGES → vectors.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .npz file to write.")
@engine_options
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=BATCH_SIZE, show_default=True, help="Images at a time."
)
@click.option("--strict", is_flag=True, help="Exit 1, and write nothing, if an image cannot be read.")
@click.option("--overwrite", is_flag=True, help="Replace the file at --out.")
def embed(
    bundle: Path,
    images: Path,
    out: Path,
    variant: str,
    backend: str,
    threads: int | None,
    batch_size: int,
    strict: bool,
    overwrite: bool,
) -> None:
    """Embed the images under IMAGES with BUNDLE and write vectors, sources and the model's id to an .npz file.

    Example: byol-edge embed bundles/photos photos/test -o vectors.npz
    """
    if out.suffix != ".npz":
        raise UsageError(f"{out}: vectors are written as .npz; name the file so")
    if out.is_dir() or (out.exists() and not overwrite):
        hint = "choose another --out" if out.is_dir() else "choose another --out, or replace it with --overwrite"
        raise OutputExistsError(f"{out} exists already; {hint}")
    out.parent.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(bundle, variant, backend, threads)
    paths = find_images(images)
    vectors, sources, errors = [], [], []
    with Bar("embedding", len(paths)) as bar:
        for chunk in encoder.stream(paths, batch_size):
            vectors.append(chunk.vectors)
            sources += [str(source) for source in chunk.sources]
            errors += [str(error) for _, error in chunk.errors]
            bar.update(len(sources) + len(errors), len(paths))
    for error in errors:
        note(f"left out: {error}")
    if not sources or (errors and strict):
        raise ImageError(f"{len(errors)} of {len(paths)} images cannot be read; {out} was not written")
    save_vectors(out, VectorFile(np.concatenate(vectors), sources, encoder.id))
    left_out = f"; {len(errors)} images could not be read and were left out" if errors else ""
    say(f"{out}: {len(sources)} vectors, of {encoder.embedding_size} numbers each, by {encoder.id}{left_out}")
