"""A resumable loop over trials: each outcome is a line of a file, and what has its line is not tried again."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from byol_edge.runtime.files import write_text

from .commands import is_stopped, stop_all

NOTE_EVERY = 60.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `what`: what was done; `ended`: a word or two to count by; `failure`: empty if it survived."""

    trial: int
    what: str
    ended: str
    failure: str = ""


@dataclass(frozen=True)
class Kind:
    """Trials of one kind, numbered from 0; the number is the seed.

    `run`: takes an empty folder and numbers, and yields their outcomes in order. `together`: how many numbers it is
    given at once, which share the folder.
    """

    name: str
    trials: int
    run: Callable[[Path, Sequence[int]], Iterable[Outcome]]
    together: int = 1


class Results:
    """The file of outcomes, `results.jsonl`, one line each; of a line cut off by a kill nothing is left."""

    def __init__(self, file: Path, forget_failures: bool = False) -> None:
        self._lock = threading.Lock()
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            outcome = Outcome(**{name: entry[name] for name in ("trial", "what", "ended", "failure")})
            if not (forget_failures and outcome.failure):
                self.outcomes[entry["kind"], outcome.trial] = outcome
        write_text(file, "".join(map(_to_line, self.outcomes.items())))
        self._file = file.open("a", encoding="utf-8")

    def add(self, kind: str, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes[kind, outcome.trial] = outcome
            self._file.write(_to_line(((kind, outcome.trial), outcome)))
            self._file.flush()
        if outcome.failure:
            print(f"FAILED {describe(kind, outcome)}", file=sys.stderr, flush=True)

    def of(self, kind: Kind) -> list[Outcome]:
        found = (self.outcomes.get((kind.name, trial)) for trial in range(kind.trials))
        return [each for each in found if each]


def run_trials(kinds: Sequence[Kind], results: Results, work: Path, jobs: int = 2) -> None:
    """Runs every trial that has no outcome yet, some at once. After Ctrl-C, those at work leave no outcome."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with ThreadPoolExecutor(jobs) as pool:
        noted = time.monotonic()
        futures = [
            pool.submit(_run_group, kind, group, results, work)
            for kind in kinds
            for group in _group([n for n in range(kind.trials) if (kind.name, n) not in results.outcomes], kind)
        ]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if time.monotonic() - noted > NOTE_EVERY:
                    noted = time.monotonic()
                    print(f"{done} of {len(futures)} groups of trials", file=sys.stderr, flush=True)
        except BaseException:
            stop_all()
            pool.shutdown(cancel_futures=True)
            raise


def _group(trials: list[int], kind: Kind) -> Iterator[list[int]]:
    """The same groups whatever is done already, so that a trial is tried again among its neighbors."""
    for start in range(0, kind.trials, kind.together):
        group = [trial for trial in trials if start <= trial < start + kind.together]
        if group:
            yield group


def _run_group(kind: Kind, trials: Sequence[int], results: Results, work: Path) -> None:
    if is_stopped():
        return
    with tempfile.TemporaryDirectory(dir=work, ignore_cleanup_errors=True) as folder:
        for outcome in run_group(kind, trials, Path(folder)):
            if is_stopped():
                return
            results.add(kind.name, outcome)


def run_group(kind: Kind, trials: Sequence[int], folder: Path) -> Iterator[Outcome]:
    """The outcomes; an error of the trial's own is a failure of the trials that it leaves without one."""
    left = list(trials)
    try:
        for outcome in kind.run(folder, trials):
            left.remove(outcome.trial)
            yield outcome
    except Exception as error:
        for trial in left:
            yield Outcome(trial, "?", "error", f"the trial itself, or what it read: {error!r}")


def summarize(kinds: Sequence[Kind], results: Results) -> tuple[str, bool]:
    """A table, then each failure; and whether all was tried and survived."""
    lines = [f"{'kind':14} {'trials':>7} {'survived':>9}  ended"]
    failures, whole = [], True
    for kind in kinds:
        outcomes = results.of(kind)
        failed = [each for each in outcomes if each.failure]
        ended = ", ".join(f"{label} {count}" for label, count in Counter(each.ended for each in outcomes).most_common())
        missing = "" if len(outcomes) == kind.trials else f" ({kind.trials - len(outcomes)} not tried)"
        lines.append(f"{kind.name:14} {len(outcomes):7} {len(outcomes) - len(failed):9}  {ended}{missing}")
        failures += [f"FAILED {describe(kind.name, each)}" for each in failed]
        whole = whole and not failed and not missing
    return "\n".join(lines + failures), whole


def describe(kind: str, outcome: Outcome) -> str:
    return f"--only {kind} --trial {outcome.trial}: {outcome.what}: {outcome.failure or outcome.ended}"


def _to_line(item: tuple[tuple[str, int], Outcome]) -> str:
    (kind, _), outcome = item
    return json.dumps({"kind": kind, **asdict(outcome)}) + "\n"
