"""`byol-edge bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ..runtime.bundle import Bundle
from ..runtime.choosing import AUTO, choose, find_pairs
from ..runtime.encoder import MOST_THREADS, Encoder
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
        print_json({f"{each.id} on {each.engine}": asdict(timing) for each, timing in results})
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
    """Whether what is taken by default is the best choice here, the last line in one sentence."""
    default = bundle.default
    lines = []
    if any(timing.spreads for _, timing in results):
        lines = ["Times vary widely: other work on this machine, or a CPU that slows down. Try again when it is idle."]
    own = {each.engine: timing for each, timing in results if each.variant == default.name}
    if not own:
        return [*lines, f"The default, {default.name}, cannot run here; name another variant to use it."]
    chosen = next((engine.name for _, engine in choose(bundle, AUTO, AUTO) if engine.name in own), min(own))
    taken = f"The default, {default.name} on {chosen}, takes {own[chosen].median:.2f} ms per image"
    others = [
        (timing, each)
        for each, timing in results
        if (each.variant, each.engine) != (default.name, chosen) and bundle.variants[each.variant].suits(each.engine)
    ]
    timing, best = min(others, key=lambda pair: pair[0].least, default=(own[chosen], None))
    if best is None or LEAD * timing.least >= own[chosen].least:
        return [*lines, f"{taken}, and nothing else within its gates is clearly faster here."]
    faster = f"{best.variant} on {best.engine} takes {timing.median:.2f} ms"
    return [*lines, f"{taken}; {faster} here: name it to use it, for all images."]
