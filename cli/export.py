"""`byol-edge export`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.bundle import BUNDLE
from ..runtime.errors import FidelityError, UsageError
from ..runtime.fidelity import OWN_COSINE
from ..runtime.files import check_output
from ..runtime.text import count
from .channels import read_channels
from .module import make_module, module_option
from .output import megabytes, needs, print_json, print_maps, print_table, say, share

if TYPE_CHECKING:
    from ..export.bundling import Export, ExportedVariant


@click.command(short_help="Export a run for CPUs and edge devices: SOURCE → bundle.")
@click.argument("sources", metavar="[SOURCE] [SOURCE]", nargs=-1)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bundle to write, a folder.")
@click.option("--int8", is_flag=True, help="Also quantize, for ONNX Runtime and for OpenVINO.")
@click.option("--fp16", is_flag=True, help="Also with weights in half precision: half the size, the same speed.")
@click.option(
    "--format",
    "formats",
    default="onnx,openvino",
    show_default=True,
    help="Either or both: .onnx for ONNX Runtime and others, .xml with .bin for OpenVINO.",
)
@click.option(
    "--target",
    type=click.Choice(["cpu-vnni", "cpu-avx2", "arm"]),
    help="The CPU that INT8 is for: with VNNI, without, or ARM.  [default: as this one]",
)
@click.option(
    "--network",
    type=click.Choice(["online", "target"]),
    default="online",
    show_default=True,
    help="The backbone that learned, or its moving average.",
)
@click.option("--with-projector", is_flag=True, help="Projections in place of embeddings: what BYOL compared.")
@click.option("--dim", "dimensions", type=int, help="Shorter vectors: this many of the directions that keep most.")
@click.option("--fuse", is_flag=True, help="Of two SOURCEs, one encoder: both vectors side by side.")
@click.option("--weight", type=float, help="The first SOURCE's share of a fused cosine, 0 to 1.  [default: 0.5]")
@click.option("--features", metavar="NAMES", help="Feature maps as outputs, too, by module: layer2,layer3.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="A folder of images to set INT8's ranges with and to judge by.  [default: those kept in the run]",
)
@click.option("--no-finetune", is_flag=True, help="Do not fine-tune, even where INT8 misses its gates otherwise.")
@click.option("--no-images", is_flag=True, help="Put synthetic images into the bundle, none of yours.")
@module_option("Export what this callable of your own returns: see above. Runs its code.")
@click.option("--backbone", help="The network of a checkpoint that does not say it: any of timm's, by name.")
@click.option("--image-size", type=int, help="Its input's side in pixels.  [default: as the weights were trained]")
@click.option("--mean", callback=read_channels, help="Mean of its pixels: 0.5, or R,G,B.  [default: the weights']")
@click.option("--std", callback=read_channels, help="Standard deviation, likewise.  [default: the weights']")
@click.option("--bgr", is_flag=True, help="Its first layer takes blue, green, red, as with OpenCV.")
@click.option("--sign", type=click.Path(path_type=Path), help="Sign the bundle with this private key, a PEM file.")
@click.option("--strict", is_flag=True, help="Exit 1 if an INT8 variant misses its gates.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def export(
    sources: tuple[str, ...],
    module: str | None,
    out: Path,
    int8: bool,
    fp16: bool,
    formats: str,
    target: str | None,
    network: str,
    with_projector: bool,
    dimensions: int | None,
    fuse: bool,
    weight: float | None,
    features: str | None,
    calibration: Path | None,
    no_finetune: bool,
    no_images: bool,
    backbone: str | None,
    image_size: int | None,
    mean: Any,
    std: Any,
    bgr: bool,
    sign: Path | None,
    strict: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export the encoder of SOURCE to ONNX and OpenVINO, and compare each variant with PyTorch.

    SOURCE is a run, or weights from elsewhere, as for `train --init`: imagenet, timm:NAME, a checkpoint, … Give these
    a folder of --calibration images.

    With --module nets:make, it is a network of your own: make of nets.py is called with SOURCE, the path of a
    checkpoint, or with nothing if there is none, and returns a torch.nn.Module, images to vectors. Give --image-size.

    With --fuse, two SOURCEs for images of one size become one encoder, as large and as slow as both together.

    Example: byol-edge export runs/photos --int8 --out bundles/photos
    """
    with needs("export"):
        from ..export.bundling import export_bundle
        from ..export.config import ExportConfig
    config = ExportConfig(
        int8=int8,
        fp16=fp16,
        formats=tuple(name.strip() for name in formats.split(",")),
        target=target,
        network=network,
        calibration=calibration,
        finetune=not no_finetune,
        no_images=no_images,
        with_projector=with_projector,
        dimensions=dimensions,
        weight=weight,
        features=() if features is None else tuple(name.strip() for name in features.split(",")),
        backbone=backbone,
        image_size=image_size,
        mean=mean,
        std=std,
        bgr=bgr,
        sign=sign,
    )
    source = _choose_source(sources, fuse, module)
    check_output(out, overwrite, BUNDLE)  # before code of the user's runs
    if module is not None:
        with redirect_stdout(sys.stderr):  # what the user's code prints
            checkpoint = next(iter(sources), None)
            result = export_bundle(make_module(module, checkpoint), out, config, overwrite=overwrite)
    else:
        result = export_bundle(source, out, config, overwrite=overwrite)
    if as_json:
        print_json(asdict(result))
    else:
        print_export(result, out)
    missed = [each for each in result.variants if each.failures]
    if strict and missed:
        raise FidelityError(
            f"{out} was written, but {missed[0].name} on {missed[0].engine} misses its gates (--strict)"
        )


def _choose_source(sources: tuple[str, ...], fuse: bool, module: str | None) -> Any:
    """What is exported, a name or a pair of them, unless it is a module. Raises UsageError."""
    if module is not None:
        if fuse or len(sources) > 1:
            raise UsageError("--module takes one checkpoint, or none, and is not fused with another encoder")
        return None
    if fuse:
        if len(sources) != 2:
            raise UsageError(f"--fuse takes two SOURCEs, not {len(sources)}")
        return sources
    if len(sources) == 1:
        return sources[0]
    if not sources:
        raise UsageError("give a SOURCE, or --module")
    raise UsageError(f"{len(sources)} SOURCEs, where one is exported; --fuse makes one encoder of two")


def print_export(result: Export, out: Path) -> None:
    """The table of variants, and in words what a person should know about them."""
    rows = [
        (
            each.name,
            each.engine,
            megabytes(each.size),
            f"{each.timing.median:.2f}",
            f"{each.fidelity.cosine_mean:.5f}",
            f"{each.fidelity.cosine_min:.5f}",
            share(each.fidelity.overlap),
            "missed" if each.failures else "passed",
        )
        for each in result.variants
    ]
    columns = ("variant", "engine", "size", "ms/image", "cosine", "lowest", "overlap@10", "gates")
    images = result.variants[0].fidelity.images
    print_table(f"{out}: against PyTorch, on {images} images kept from calibration", columns, rows, left=2)
    print_maps({each.name: each.maps for each in result.variants})
    say(f"The default, on every device, is {result.default}.")
    for each in result.variants:
        if each.failures:
            say(f"{each.name} on {each.engine} misses its gates and is never chosen: {'; '.join(each.failures)}")
        elif each.agreement < OWN_COSINE[each.precision]:
            say(
                f"Vectors of {each.name} on {each.engine} do not mix with those on another engine: lowest cosine "
                f"{each.agreement:.5f}, less than {OWN_COSINE[each.precision]:g}."
            )
    for name, search in result.searches.items():
        left = f", {search.kept.float_share:.0%} of the multiply-adds" if search.kept.float_share else ""
        say(f"{name}: {search.kept.name}{left}; {count(len(search.tried), 'trial')}.")
    if any(each.timing.spreads for each in result.variants):
        say("Times vary widely: other work on this machine. The default may be another when it is idle; see `bench`.")
    for line in _slower(result.variants):
        say(line)
    if result.golden_images:
        say(f"The bundle holds {result.golden_images} of your images, at model size, as reference (golden.npz).")
    else:
        say("The bundle holds none of your images; its reference (golden.npz) is drawn.")


def _slower(variants: tuple[ExportedVariant, ...]) -> list[str]:
    """A line for each INT8 variant that is no faster here than what is in float on the same engine."""
    lines = []
    for each in variants:
        in_float = [other for other in variants if other.engine == each.engine and other.precision != "int8"]
        fastest = min(in_float, key=lambda other: other.timing.median)
        if each.precision == "int8" and each.timing.median >= fastest.timing.median:
            saved = megabytes(fastest.size - each.size)
            lines.append(f"{each.name} is no faster than {fastest.name} on {each.engine} here; it saves {saved}.")
    return lines
