"""Attacks the commands and the runtime, with some 11,000 trials that each have to leave nothing lost and nothing wrong.

    pip install -e '.[all]'
    python benchmarks/attacks.py --out build/attacks

Broken images, commands killed and interrupted at random moments, hostile manifests, model files and runs. A trial's
number is its seed. Each outcome is kept in OUT/results.jsonl as soon as it is known, so that the command can be stopped
at any time, and goes on where it was. Exits 1 if a trial failed or is missing. Takes an hour on 2 cores.

    --only kill-train,models    these kinds only
    --count 10                  the first 10 of each kind
    --failed                    try those again that failed, as after a repair
    --only models --trial 17    one trial again, with what it printed; its files stay in OUT/again
"""

from __future__ import annotations

import argparse
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from campaign import images, manifests, models, runs, stops
from campaign.bench import Bench
from campaign.trials import Kind, Results, describe, run_group, run_trials, summarize

IMAGES_TOGETHER = 250


def main() -> None:
    arguments = _parse()
    # A shell's background jobs ignore Ctrl-C, and what they start does, too, which would make of interrupts nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    bench = Bench(arguments.out.absolute() / "bench")
    kinds = _choose(all_kinds(bench), arguments.only, arguments.count)
    if any(kind.name != "images" for kind in kinds):
        bench.prepare()
    if arguments.trial is not None:
        raise SystemExit(try_again(kinds, arguments.trial, arguments.out.absolute() / "again"))
    results = Results(arguments.out / "results.jsonl", forget_failures=arguments.failed)
    try:
        run_trials(kinds, results, arguments.out.absolute() / "work", arguments.jobs)
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
    table, whole = summarize(kinds, results)
    print(table)
    raise SystemExit(0 if whole else 1)


def all_kinds(bench: Bench) -> list[Kind]:
    return [
        Kind("kill-train", stops.TRIALS, partial(stops.kill_train, bench), stops.CHAIN),
        Kind("kill-export", stops.TRIALS, partial(stops.kill_export, bench)),
        Kind("kill-embed", stops.TRIALS, partial(stops.kill_embed, bench)),
        Kind("interrupts", stops.TRIALS, partial(stops.interrupt, bench)),
        Kind("manifests", manifests.TRIALS, partial(manifests.try_manifests, bench)),
        Kind("models", models.TRIALS, partial(models.try_models, bench)),
        Kind("runs", runs.TRIALS, partial(runs.try_runs, bench)),
        Kind("images", images.TRIALS, images.try_images, IMAGES_TOGETHER),
    ]


def try_again(kinds: Sequence[Kind], trial: int, folder: Path) -> int:
    """Runs one trial of one kind, and those that share its folder, and records nothing."""
    (kind,) = kinds
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first = trial // kind.together * kind.together if kind.name == "kill-train" else trial
    failed = 0
    for outcome in run_group(kind, range(first, trial + 1), folder):
        print(f"{'FAILED' if outcome.failure else 'survived'} {describe(kind.name, outcome)}", flush=True)
        failed = int(bool(outcome.failure))
    print(f"what it left is in {folder}")
    return failed


def _choose(kinds: list[Kind], only: str | None, count: int | None) -> list[Kind]:
    names = only.split(",") if only else [kind.name for kind in kinds]
    unknown = set(names) - {kind.name for kind in kinds}
    if unknown:
        raise SystemExit(f"no such kind: {', '.join(unknown)}; there are {', '.join(kind.name for kind in kinds)}")
    chosen = [kind for kind in kinds if kind.name in names]
    return [replace(kind, trials=min(kind.trials, count)) for kind in chosen] if count else chosen


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the set-up and the results")
    parser.add_argument("--only", help="kinds, with commas between them")
    parser.add_argument("--count", type=int, help="trials of each kind; all if left out")
    parser.add_argument("--trial", type=int, help="with --only KIND: this one again")
    parser.add_argument("--failed", action="store_true", help="try again what failed")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once; 2 if left out")
    arguments = parser.parse_args()
    if (arguments.trial is not None and len((arguments.only or "").split(",")) != 1) or (
        arguments.trial is not None and not arguments.only
    ):
        parser.error("--trial takes --only with one kind")
    return arguments


if __name__ == "__main__":
    main()
