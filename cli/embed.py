"""`byol-edge embed`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..runtime.bundle import MANIFEST
from ..runtime.embedding import embed_files
from ..runtime.encoder import BATCH_SIZE, MOST_THREADS, Encoder
from ..runtime.errors import UsageError
from ..runtime.identity import Made, Maker
from ..runtime.index import open_as
from ..runtime.model_file import FORMATS
from ..runtime.run import Run
from ..runtime.shards import check_free, count_missing, discard_shards, find_maker, is_finished
from ..runtime.share import WHOLE, Share, read_share
from ..runtime.stream import Streamer
from ..runtime.text import count
from .channels import read_channels
from .output import needs, note_unread, say

# What only weights that PyTorch runs are told, by the names of ExportConfig.
OF_WEIGHTS = ("backbone", "image_size", "mean", "std")


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
@click.argument("source")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .npz or .parquet file to write.")
@engine_options
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=BATCH_SIZE, show_default=True, help="Images at a time."
)
@click.option("--backbone", help="The network of a checkpoint that does not say it: any of timm's, by name.")
@click.option("--image-size", type=int, help="Its input's side in pixels.  [default: as the weights were trained]")
@click.option("--mean", callback=read_channels, help="Mean of its pixels: 0.5, or R,G,B.  [default: the weights']")
@click.option("--std", callback=read_channels, help="Standard deviation, likewise.  [default: the weights']")
@click.option(
    "--shards",
    metavar="I/N",
    callback=lambda context, option, text: None if text is None else read_share(text),
    help="Embed one of N shares of the images, I from 0 to N-1, into a file of its own.",
)
@click.option("--resume", is_flag=True, help="Go on where the same command was stopped.")
@click.option("--strict", is_flag=True, help="Exit 1, and write nothing, if an image cannot be read.")
@click.option("--overwrite", is_flag=True, help="Replace the file at --out.")
@click.pass_context
def embed(
    context: click.Context,
    source: str,
    images: Path,
    out: Path,
    batch_size: int,
    shards: Share | None,
    resume: bool,
    strict: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Embed the images under IMAGES with SOURCE and write vectors, sources and the model's id to a file.

    SOURCE is a bundle or one of its .onnx files. Or it is what `export` takes: a run, imagenet, timm:NAME, a
    checkpoint, …; PyTorch runs these.

    Example: byol-edge embed bundles/photos photos/test -o vectors.npz
    """
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite begins again: give one of them")
    out = shards.name_file(out) if shards else out
    find_images = partial((shards or WHOLE).find_images, images)
    check_free(out, resume, overwrite)
    given = {name: options[name] for name in options if context.get_parameter_source(name) != ParameterSource.DEFAULT}
    with open_source(source, given, find_maker(out) if resume else None) as encoder:
        total = sum(1 for _ in find_images())  # and listed again as they are embedded, since their paths may be many
        if shards is None or shards.number == 0:
            note_unread(images)
        if resume and is_finished(out):
            missing = count_missing(out, encoder, find_images())
            hint = f"; {missing} of {total} images are not in it: --overwrite embeds all again" if missing else ""
            say(f"{out} is finished already{hint}")
            return
        if not resume:
            discard_shards(out)
        result = embed_files(encoder, find_images(), total, out, batch_size, strict)
    made_by = Maker.of(encoder)
    left_out = f"; left out: {count(len(result.errors), 'unreadable image')}" if result.errors else ""
    say(f"{out}: {count(result.count, 'vector')}, of {encoder.embedding_size} numbers each, by {made_by}{left_out}")


def open_source(source: str, options: dict[str, Any], made: Made | None = None) -> AbstractContextManager[Streamer]:
    """The encoder that `source` means, with the options that were typed, which have to be of its kind.

    `made`: vectors that it is to go on with; a bundle is then opened as the variant and on the engine that made them,
    unless others were typed.
    """
    by_pytorch = _needs_pytorch(source)
    foreign = next((name for name in options if (name in OF_WEIGHTS) != by_pytorch), None)
    if foreign is not None:
        what = "runs in PyTorch, as it is, on the CPU" if by_pytorch else "has its own, as exported"
        raise UsageError(f"{{{foreign}}}: {source} {what}; leave it out", **{foreign: options[foreign]})
    if not by_pytorch and made is not None and not {"variant", "backend"} & options.keys():
        return open_as(made, source, **options)
    if not by_pytorch:
        return Encoder(source, **options)
    with needs("export"):
        from ..export.config import ExportConfig
        from ..export.source import find_weights
        from ..models.eager import EagerEncoder
        from ..models.network import InferenceNetwork
        from ..models.tail import build_tail
    weights = find_weights(source, ExportConfig(**options))
    network = InferenceNetwork(weights.backbone, weights.spec.preprocessing, build_tail(weights.layers))
    return nullcontext(EagerEncoder(network, weights.spec))


def _needs_pytorch(source: str) -> bool:
    """Whether this names weights, not a bundle or a model file; told without PyTorch, which a device lacks."""
    path = Path(source)
    if source == "imagenet":  # a path of that name, too, is refused where all names of weights are known
        return True
    if (path / MANIFEST).exists() or path.suffix in {each.suffixes[0] for each in FORMATS}:
        return False
    if path.is_dir():
        return Run(path).exists
    return path.exists() or ":" in source
