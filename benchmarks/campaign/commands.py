"""A command as a user types it, in a process of its own: watched, limited, and stopped by a signal if asked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PROGRAM = (sys.executable, "-m", "byol_edge")
POLL = 0.01  # seconds
MOST_PRINTED = 20_000  # characters; a failure of `embed` may name each image
# All but tab, line feed, and the carriage return of a progress bar.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ENGINES_OWN = re.compile(r"\[[EWF]:onnxruntime")

_live: set[int] = set()
_stopped = threading.Event()


@dataclass(frozen=True)
class Limits:
    """What a command may take before it is killed for it."""

    seconds: float = 120
    megabytes: float = 8_000  # resident


@dataclass(frozen=True)
class Signal:
    """A signal for a command at work: SIGINT for its whole group, as from a terminal, others for it alone."""

    number: signal.Signals
    after: float  # seconds of CPU time, so that other work on the machine does not put it off to an earlier step


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds, of the process itself those on a CPU, and the most memory in MB."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    megabytes: float = 0.0


@dataclass(frozen=True)
class Ended:
    """`code`: as of subprocess, below 0 for a signal. `cause`: "itself", "signal" (as asked), "time" or "memory"."""

    code: int
    cause: str
    out: str
    err: str
    usage: Usage

    @property
    def label(self) -> str:
        return self.cause if self.cause in ("time", "memory") else f"exit {self.code}"


def run_command(*arguments: object, limits: Limits | None = None, send: Signal | None = None) -> Ended:
    """Runs `byol-edge ARGUMENTS` and waits for its end."""
    limits = limits or Limits()
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # trials share the cores
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )
        with _watched(process):
            cause, usage = _wait(process, limits, send)
        return Ended(process.returncode, cause, _read(out), _read(err), usage)


def find_fault(ended: Ended, codes: tuple[int, ...] = (0, 1, 2)) -> str:
    """What a command did that none may do, whatever it is given: empty if nothing."""
    last = ended.err.strip().splitlines()[-1:] or [""]
    named = [line for line in ended.err.splitlines() if line.startswith(("byol-edge: ", "Error: "))]
    faults = {
        "took too long": ended.cause == "time",
        f"took too much memory, {ended.usage.megabytes:.0f} MB": ended.cause == "memory",
        f"ended with {ended.code}": ended.cause == "itself" and ended.code not in codes,
        "a traceback": "Traceback (most recent call last)" in ended.err + ended.out,
        "not one line that says what is wrong": ended.code in (1, 2) and (len(named) != 1 or named != last),
        "control characters": bool(CONTROLS.search(ended.out + ended.err)),
        "an engine's own messages": bool(ENGINES_OWN.search(ended.out + ended.err)),
        "too much text": len(ended.out) + len(ended.err) > MOST_PRINTED,
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    return f"{', '.join(found)}: {tell(ended)}" if found else ""


def tell(ended: Ended) -> str:
    """What a command printed last, for a report."""
    text = ended.err.strip() or ended.out.strip() or "nothing printed"
    text = text if len(text) <= 1200 else f"{text[:300]} […] {text[-900:]}"
    return CONTROLS.sub("?", text)


def stop_all() -> None:
    """Kills what is running; whoever waits for it gets its end, and sees `is_stopped`."""
    _stopped.set()
    for group in list(_live):
        _kill_group(group, signal.SIGKILL)


def is_stopped() -> bool:
    return _stopped.is_set()


@contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[None]:
    _live.add(process.pid)
    try:
        yield
    finally:
        if process.poll() is None:  # Ctrl-C while it was waited for
            _kill_group(process.pid, signal.SIGKILL)
            process.wait()
        _live.discard(process.pid)


def _wait(process: subprocess.Popen[bytes], limits: Limits, send: Signal | None) -> tuple[str, Usage]:
    """Why the command ended, and what it took."""
    start, usage, cause = time.monotonic(), Usage(), "itself"
    while process.poll() is None:
        usage = _measure(process.pid, time.monotonic() - start, usage)
        if send and cause == "itself" and usage.cpu_seconds >= send.after:
            cause = "signal"
            if send.number == signal.SIGINT:
                _kill_group(process.pid, send.number)
            else:
                process.send_signal(send.number)
        elif is_stopped() or usage.seconds > limits.seconds or usage.megabytes > limits.megabytes:
            cause = "memory" if usage.megabytes > limits.megabytes else "time"
            _kill_group(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(POLL)
    return cause, usage


def _measure(process: int, seconds: float, before: Usage) -> Usage:
    """What a process has taken by now; of one that has just ended, what was known before."""
    folder = Path(f"/proc/{process}")
    try:
        status = (folder / "status").read_text().splitlines()
        ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return before
    peak = next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), before.megabytes)
    return Usage(seconds, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), peak)


def _kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _read(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(10_000_000).decode(errors="replace")
