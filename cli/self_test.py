"""`byol-edge self-test`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ..runtime.encoder import Encoder
from ..runtime.errors import FidelityError
from .embed import engine_options
from .output import print_json, say


@click.command(name="self-test", short_help="Test a bundle on this device, without PyTorch.")
@click.argument("bundle", type=click.Path(path_type=Path))
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def self_test(
    bundle: Path,
    variant: str,
    backend: str,
    threads: int | None,
    device: str,
    low_power: bool,
    public_key: Path | None,
    as_json: bool,
) -> None:
    """Embed the reference images of BUNDLE and compare with PyTorch's embeddings; exit 1 if they are too far apart.

    Example: byol-edge self-test bundles/photos
    """
    encoder = Encoder(bundle, variant, backend, threads, device, low_power, public_key)
    result = encoder.self_test()
    if as_json:
        verdict = {"failures": result.failures, "passed": result.passed}
        print_json({**asdict(result), **verdict, "model": encoder.id, "engine": encoder.engine})
    else:
        say(f"{encoder.id} on {encoder.engine}, {result.images} reference images")
        fidelity = result.to_pytorch
        say(f"  to PyTorch:       mean cosine {fidelity.cosine_mean:.6f}, lowest {fidelity.cosine_min:.6f}")
        say(f"  to the export:    lowest cosine {result.to_export:.6f}")
        for name, agreement in result.maps.items():
            say(f"  map of {name + ':':<11}lowest agreement with PyTorch {agreement:.6f}")
        say(f"  decoded pixels:   largest mean difference {result.pixel_error:.2f} of 255")
        say("passed" if result.passed else "FAILED")
    if not result.passed:
        raise FidelityError(f"{bundle}: {encoder.variant} on {encoder.engine}: {'; '.join(result.failures)}")
