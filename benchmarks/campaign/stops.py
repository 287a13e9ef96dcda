"""Commands killed (SIGKILL) and interrupted (SIGINT) at random moments, looked at, and run again to their end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from signal import SIGINT, SIGKILL

from .bench import PARQUET, Bench
from .commands import Ended, Signal, find_fault, run_command, tell
from .trials import Outcome
from .written import check_whole, compare, find_left_over

TRIALS = 100  # of each command's kills, and of all interrupts
PATIENCE = 300.0  # seconds beyond the usual, for speed is not what these trials are about
CHAIN = 10  # kills of one training before it is let go to its end
INTERRUPTED = (
    "train", "embed", "export", "self-test", "validate", "export-int8", "bench", "embed.parquet", "inspect", "train",
)  # fmt: skip
WRITES = ("train", "export", "embed")


def kill_train(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    """One training, killed and resumed again and again; the last trial lets it end."""
    out = folder / "run"
    for trial in trials:
        sent, ended = _stop(bench, "train", out, Random(f"train {trial}"), ("--resume",))
        found, failure = check_whole("train", out, bench.run)
        failure = failure or ("" if ended.cause == "signal" else f"not killed: {tell(ended)}")
        if trial == trials[-1]:
            failure = failure or _finish(bench, "train", out, ("--resume",))
        yield Outcome(trial, f"killed after {sent.after:.2f} CPU s", found, failure)


def kill_export(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    """Every fourth with INT8, every second over a bundle that is there already."""
    for trial in trials:
        name = "export-int8" if trial % 4 == 3 else "export"
        out = folder / "bundle"
        if trial % 2:
            shutil.copytree(bench.result(name), out)
        yield _kill_once(bench, name, out, trial, "--overwrite", had=bool(trial % 2))


def kill_embed(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    for trial in trials:
        name = "embed.parquet" if PARQUET and trial % 2 else "embed"
        yield _kill_once(bench, name, folder / f"v{bench.result(name).suffix}", trial, "--resume")


def _kill_once(bench: Bench, name: str, out: Path, trial: int, again: str, had: bool = False) -> Outcome:
    sent, ended = _stop(bench, name, out, Random(f"{name} {trial}"), (again,))
    found, failure = check_whole(name, out, bench.result(name))
    if ended.cause != "signal":
        failure = failure or f"not killed: {tell(ended)}"
    if had and found == "nothing yet":
        failure = "the bundle that was there is gone"
    failure = failure or _finish(bench, name, out, (again,))
    what = f"{name}{' over another' if had else ''} killed after {sent.after:.2f} CPU s"
    return Outcome(trial, what, f"{found}, then finished", failure)


def interrupt(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    """Ctrl-C: 130 or death by the signal, no traceback, nothing half-written, and the same command goes on."""
    for trial in trials:
        name = INTERRUPTED[trial % len(INTERRUPTED)]
        writes = name.startswith(WRITES)
        again = () if not writes else ("--overwrite",) if name.startswith("export") else ("--resume",)
        out = folder / f"out{bench.result(name).suffix}"
        draw = Random(f"interrupt {trial}")
        sent = Signal(SIGINT, draw.uniform(0.03, bench.usage(name).cpu_seconds))
        ended = run_command(*bench.command(name, out), *again, limits=bench.limits(name, PATIENCE), send=sent)
        failure = find_fault(ended, codes=(0, 130, -SIGINT))
        if ended.cause == "signal" and ended.code not in (0, 130, -SIGINT):
            failure = failure or f"ended with {ended.code}: {tell(ended)}"
        if writes:
            _, damage = check_whole(name, out, bench.result(name))
            failure = failure or damage or _find_half_written(out) or _finish(bench, name, out, again)
        yield Outcome(trial, f"{name} interrupted after {sent.after:.2f} CPU s", ended.label, failure)


def _stop(bench: Bench, name: str, out: Path, draw: Random, extra: tuple[str, ...]) -> tuple[Signal, Ended]:
    """Kills a command at a random moment; where it was done before, it begins anew and is killed earlier."""
    longest = bench.usage(name).cpu_seconds
    had = out.exists() and name.startswith("export")
    while True:
        sent = Signal(SIGKILL, draw.uniform(0.03, longest))
        ended = run_command(*bench.command(name, out), *extra, limits=bench.limits(name, PATIENCE), send=sent)
        if ended.code != 0:
            return sent, ended
        if failure := compare(name, out, bench.result(name)):
            raise AssertionError(f"ended by itself, and wrongly: {failure}")
        if not had:
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        longest *= 0.9


def _finish(bench: Bench, name: str, out: Path, extra: tuple[str, ...]) -> str:
    """Lets the command end, and says what is wrong then."""
    ended = run_command(*bench.command(name, out), *extra, limits=bench.limits(name, PATIENCE))
    if ended.code != 0 or find_fault(ended):
        return f"the same command again ended with {ended.code}: {tell(ended)}"
    failure = compare(name, out, bench.result(name)) or find_left_over(out.parent, out.name)
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return failure


def _find_half_written(out: Path) -> str:
    """After an interrupt, unlike after a kill, there is time to take temporary files away."""
    return find_left_over(out.parent, out.name, f"{out.name}.parts")
