"""Self-tests each variant of a bundle on each engine, and embeds a folder of images: python embed.py BUNDLE IMAGES OUT

Calls the commands that a person types, in one process, since Python takes long to start on an emulated device.
"""

import sys
from pathlib import Path

from byol_edge.cli.main import cli
from byol_edge.runtime.bundle import Bundle
from byol_edge.runtime.choosing import find_pairs
from click.testing import CliRunner


def try_command(*arguments: object) -> list[str]:
    """What the command says of why it fails; nothing if it does not."""
    result = CliRunner().invoke(cli, [str(each) for each in arguments])
    return [] if result.exit_code == 0 else [result.stderr.strip() or repr(result.exception)]


def prove(bundle: Path, images: Path, out: Path) -> bool:
    """Writes `out`/VARIANT on ENGINE.npz for all variants and engines; whether all went well."""
    failures = []
    for variant, engine in find_pairs(Bundle.open(bundle)):
        name, on = f"{variant} on {engine}", ("--variant", variant, "--backend", engine)
        found = try_command("self-test", bundle, *on)
        found += try_command("embed", bundle, images, "-o", out / f"{name}.npz", "--strict", *on)
        print(f"  {name}:", "; ".join(found) or "self-test passed, images embedded", flush=True)
        failures += found
    return not failures


if __name__ == "__main__":
    bundle, images, out = map(Path, sys.argv[1:])
    sys.exit(0 if prove(bundle, images, out) else 1)
