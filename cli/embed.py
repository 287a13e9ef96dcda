"""`byol-edge embed`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..runtime.encoder import BATCH_SIZE, MOST_THREADS, Encoder
from ..runtime.errors import UsageError
from ..runtime.images import find_images
from ..runtime.shards import check_free, count_missing, discard_shards, embed_files, is_finished
from .output import count, note_unread, say


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose the variant, the engine, and what it runs on."""
    for option in (
        click.option(
            "--public-key",
            type=click.Path(path_type=Path),
            help="Refuse a bundle that was not signed with this key's private part: a PEM file.",
        ),
        click.option("--low-power", is_flag=True, help="Let threads sleep between calls: slower, saves power."),
        click.option("--device", default="cpu", show_default=True, help="cpu, or what the engine offers: cuda, gpu."),
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
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .npz or .parquet file to write.")
@engine_options
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=BATCH_SIZE, show_default=True, help="Images at a time."
)
@click.option("--resume", is_flag=True, help="Go on where the same command was stopped.")
@click.option("--strict", is_flag=True, help="Exit 1, and write nothing, if an image cannot be read.")
@click.option("--overwrite", is_flag=True, help="Replace the file at --out.")
def embed(
    bundle: Path,
    images: Path,
    out: Path,
    variant: str,
    backend: str,
    threads: int | None,
    device: str,
    low_power: bool,
    public_key: Path | None,
    batch_size: int,
    resume: bool,
    strict: bool,
    overwrite: bool,
) -> None:
    """Embed the images under IMAGES with BUNDLE and write vectors, sources and the model's id to a file.

    Example: byol-edge embed bundles/photos photos/test -o vectors.npz
    """
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite begins again: give one of them")
    check_free(out, resume, overwrite)
    with Encoder(bundle, variant, backend, threads, device, low_power, public_key) as encoder:
        paths = find_images(images)
        note_unread(images)
        if resume and is_finished(out):
            missing = count_missing(out, encoder.id, paths)
            hint = f"; {missing} of {len(paths)} images are not in it: --overwrite embeds all again" if missing else ""
            say(f"{out} is finished already{hint}")
            return
        if not resume:
            discard_shards(out)
        result = embed_files(encoder, paths, out, batch_size, strict)
    left_out = f"; left out: {count(len(result.errors), 'unreadable image')}" if result.errors else ""
    say(f"{out}: {count(result.count, 'vector')}, of {encoder.embedding_size} numbers each, by {encoder.id}{left_out}")
