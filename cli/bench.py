"""`byol-edge bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ..runtime.bundle import Bundle
from ..runtime.encoder import MOST_THREADS, Encoder, find_pairs
from ..runtime.errors import EngineError
from ..runtime.timing import LEAD, Timing, time_in_turn
from .output import note, print_json, print_table, say


@click.command(short_help="Time every variant and engine of a bundle, side by side, on this machine.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--batch-size", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images at a time.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Time for each.")
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads of the engine.  [default: all available]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def bench(bundle: Path, batch_size: int, seconds: float, threads: int | None, as_json: bool) -> None:
    """Time every variant of BUNDLE on every engine that is installed, in turn.

    Example: byol-edge bench bundles/photos
    """
    opened = Bundle.open(bundle)
    encoders = []
    left_out: dict[str, list[str]] = {}
    for variant, engine in find_pairs(opened):
        try:
            encoders.append(Encoder(bundle, variant, engine, threads))
        except EngineError as error:
            left_out.setdefault(str(error.__cause__), []).append(f"{variant} on {engine}")
    for why, names in left_out.items():
        note(f"left out: {', '.join(names)}: {why}")
    if not encoders:
        raise EngineError(f"{bundle}: none of its variants can run here")
    side = opened.preprocessing.image_size
    timings = time_in_turn([each.run for each in encoders], side, batch_size, seconds)
    results = list(zip(encoders, timings, strict=True))
    if as_json:
        print_json({each.id: asdict(timing) for each, timing in results})
        return
    rows = [
        (
            each.variant,
            each.engine,
            f"{timing.median:.2f}",
            f"{timing.lower:.2f} – {timing.upper:.2f}",
            "passed" if opened.variants[each.variant].passes else "missed",
        )
        for each, timing in results
    ]
    columns = ("variant", "engine", "ms/image", "quartiles", "gates")
    print_table(f"{bundle}: batch {batch_size}, {side} px, decoding not counted", columns, rows, left=2)
    at_once = "one image" if batch_size == 1 else f"{batch_size} images"
    say(f"ms/image: median over {seconds:g} s each, in turn, {at_once} at a time. gates: passed or missed at export.")
    for line in judge_default(opened, results):
        say(line)


def judge_default(bundle: Bundle, results: Sequence[tuple[Encoder, Timing]]) -> list[str]:
    """Whether the default is the best choice here, the last line in one sentence; a new export alone changes it."""
    default = bundle.default
    lines = []
    if any(timing.spreads for _, timing in results):
        lines = ["Times vary widely: other work on this machine, or a CPU that slows down. Try again when it is idle."]
    own = [timing for each, timing in results if each.variant == default.name]
    others = [
        (timing, each)
        for each, timing in results
        if each.variant != default.name and bundle.variants[each.variant].passes
    ]
    if not own:
        return [*lines, f"The default, {default.name}, cannot run here; name another variant to use it."]
    fastest = min(own, key=lambda timing: timing.least)
    taken = f"The default, {default.name}, takes {fastest.median:.2f} ms per image"
    timing, best = min(others, key=lambda pair: pair[0].least, default=(fastest, None))
    if best is not None and LEAD * timing.least < fastest.least:
        faster = f"{best.variant} on {best.engine} takes {timing.median:.2f} ms"
        return [*lines, f"{taken}; {faster} here: name it to use it, for all images."]
    return [*lines, f"{taken}, and no other variant within its gates is clearly faster here."]
