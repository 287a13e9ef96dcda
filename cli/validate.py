"""`byol-edge validate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.errors import FidelityError
from .output import Bar, needs, note, print_table, say, share

if TYPE_CHECKING:
    from ..export.validate import Validation


@click.command(short_help="Compare every variant of a bundle with PyTorch on your images.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A folder of images, searched recursively."
)
@click.option("--variant", help="Only this one: fp32, int8, or a name such as int8.onnx.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def validate(bundle: Path, data: Path, variant: str | None, as_json: bool) -> None:
    """Compare every variant of BUNDLE with PyTorch on the images under --data; exit 1 when a gate fails.

    Where --data has a sub-folder a class, 5-NN accuracy is compared too.

    Example: byol-edge validate bundles/photos --data photos/test
    """
    with needs("export"):
        from ..export.validate import validate as run_validation
    with Bar("validating", 0) as bar:
        result = run_validation(bundle, data, variant, bar.update)
    if as_json:
        click.echo(json.dumps({**asdict(result), "failures": result.failures}, indent=2))
    else:
        print_validation(result, bundle)
    if result.failures:
        raise FidelityError(f"{bundle}: {len(result.failures)} gates failed: {'; '.join(result.failures)}")


def print_validation(result: Validation, bundle: Path) -> None:
    """PyTorch's line, a line a variant, and what was left out."""
    for message in result.unreadable:
        note(f"left out: {message}")
    rows = [("PyTorch", "eager", "", "", "", "", share(result.accuracy), "")]
    rows += [
        (
            each.name,
            each.engine,
            f"{each.fidelity.cosine_mean:.5f}",
            f"{each.fidelity.cosine_p01:.5f}",
            f"{each.fidelity.cosine_min:.5f}",
            share(each.fidelity.overlap),
            share(each.accuracy),
            "FAILED" if each.failures else "passed",
        )
        for each in result.variants
    ]
    columns = ("variant", "engine", "cosine", "1st pct", "lowest", "overlap@10", "5-NN", "gates")
    what = f", {result.classes} classes" if result.classes else ", no class folders"
    print_table(f"{bundle}: {result.images} images{what}", columns, rows, left=2)
    if result.unreadable:
        say(f"{len(result.unreadable)} images could not be read and were left out.")
