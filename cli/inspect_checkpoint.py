"""`byol-edge inspect` of a checkpoint: what it is recognized as, and the command that exports it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import needs, print_json, say, say_pairs

if TYPE_CHECKING:
    from ..models.starts import Start

# Parts of a checkpoint that are listed.
LISTED = 8


def inspect_checkpoint(path: Path, as_json: bool) -> None:
    """Says what a file of weights is. Raises RunError or UsageError where it is not recognized, its parts printed."""
    with needs("export"):
        from ..models.layouts import strip_wrappers
        from ..models.starts import find_path
        from ..models.tensor_file import find_file, read_tensors
    names = list(read_tensors(find_file(path)))
    parts = Counter(strip_wrappers(name).partition(".")[0] for name in names)
    try:
        start = find_path(path)
    except Exception:
        if not as_json:
            say_pairs(f"file of tensors {path}", {"holds": _list_parts(parts, len(names))})
        raise
    command = tell_command(path, start)
    if as_json:
        print_json(_to_json(start, parts, command))
        return
    say_pairs(
        f"{start.what.removeprefix('a ')} {path}",
        {
            "from": start.source or "no project that is known here",
            "network": f"{start.backbone}, {start.stem} stem, {_count_parameters(start) / 1e6:.1f} M parameters",
            "holds": _list_parts(parts, len(names)),
            "projector": _tell_sizes(start) if start.layers else "none that is known here",
            "assumed": "; ".join(start.assumptions) or "nothing",
        },
    )
    say(f"\n  {command}")


def tell_command(path: Path, start: Start) -> str:
    """The command that exports it; in capitals what its user has to say."""
    needed = [] if start.image_size else ["--image-size PIXELS"]
    source = shlex.quote(str(path) if path.is_absolute() or path.parts[1:] else f"./{path}")
    return " ".join(
        [
            "byol-edge export",
            source,
            *needed,
            "--int8 --calibration PHOTOS",
            f"--out {shlex.quote(f'bundles/{path.stem}')}",
        ]
    )


def _list_parts(parts: Counter[str], total: int) -> str:
    listed = ", ".join(f"{name} {count}" for name, count in parts.most_common(LISTED))
    return f"{total} tensors: {listed}" + (", …" if len(parts) > LISTED else "")


def _count_parameters(start: Start) -> int:
    kinds = (".running_mean", ".running_var", ".num_batches_tracked")
    return sum(tensor.numel() for name, tensor in start.read().items() if not name.endswith(kinds))


def _tell_sizes(start: Start) -> str:
    sizes: Iterable[int] = [start.layers[0][0].shape[1], *(len(weight) for weight, _ in start.layers)]
    return " → ".join(map(str, sizes))


def _to_json(start: Start, parts: Counter[str], command: str) -> dict[str, Any]:
    names = ("what", "source", "backbone", "stem", "image_size", "mean", "std", "license", "assumptions")
    return {"kind": "checkpoint", **{name: getattr(start, name) for name in names}, "parts": parts, "export": command}
