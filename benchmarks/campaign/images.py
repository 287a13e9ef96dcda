"""Broken images: each gives pixels or an ImageError, within seconds and in bounded memory, and the process lives on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from byol_edge.runtime import ImageError, Preprocessing, prepare
from mutations import make_corpus

from .trials import Outcome

TRIALS = 10_000
MOST_SECONDS = 5
MOST_MEGABYTES = 600  # of address space beyond what the process takes without an image
DIED = {-signal.SIGALRM: f"took more than {MOST_SECONDS} s"}


def try_images(_: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    """Judges images in a process of its own, and those after one that killed it in the next."""
    left = list(trials)
    while left:
        done = _start_judge(left)
        outcomes = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
        yield from outcomes
        left = left[len(outcomes) :]
        if left:
            how = DIED.get(done.returncode, f"the process ended with {done.returncode}: {done.stderr[-600:]}")
            yield Outcome(left.pop(0), "see --trial", "died", how)


def judge(trials: Iterable[int], last: int) -> Iterator[Outcome]:
    """The outcomes of images of the corpus, in this process, which an endless decoder ends."""
    corpus = make_corpus(last + 1)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = now + MOST_MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # no Python handler: it would wait for the decoder
    for trial in trials:
        name, content = corpus[trial]
        signal.alarm(MOST_SECONDS + 1)
        start = time.monotonic()
        ended, failure = _decode(content)
        if time.monotonic() - start > MOST_SECONDS:
            failure = failure or DIED[-signal.SIGALRM]
        signal.alarm(0)
        yield Outcome(trial, name, ended, failure)


def _decode(content: bytes) -> tuple[str, str]:
    """How it ended, and what is wrong with that, if anything."""
    try:
        pixels = prepare(content, Preprocessing(32))
    except ImageError as error:
        text = str(error)
        return "refused", f"not a short line: {text[:300]!r}" if "\n" in text or len(text) > 500 else ""
    except BaseException as error:
        return "untyped", repr(error)[:500]
    fits = pixels.shape == (32, 32, 3) and pixels.dtype == "uint8"
    return "decoded", "" if fits else f"{pixels.dtype} {pixels.shape}"


def _start_judge(trials: Sequence[int]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", "-m", "campaign.images", json.dumps(list(trials))]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)


def main() -> None:
    trials = json.loads(sys.argv[1])
    for outcome in judge(trials, max(trials)):
        print(json.dumps(vars(outcome)), flush=True)


if __name__ == "__main__":
    main()
