"""What the commands print: tables on standard output, progress on standard error."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from ..runtime.errors import ByolEdgeError
from ..runtime.fidelity import MapFidelity
from ..runtime.files import finite
from ..runtime.images import count_unread
from ..runtime.progress import PROGRESS, Progress
from ..runtime.text import printable
from .interrupts import ending_at_once

PLAIN_LINE_EVERY = 10.0  # seconds, where standard error is no terminal


def standard_output() -> Console:
    """A console that folds no line of a table, since half a figure on a line is worse than what a terminal does."""
    return Console(width=200, highlight=False, markup=False, emoji=False)


@cache
def standard_error() -> Console:
    """The one console that bars and notes share, so that a note does not tear a bar."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Prints a table under a title, the first `left` columns flush left and the others flush right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    if title:
        say(title)
    standard_output().print(table)


def print_maps(variants: Mapping[str, Mapping[str, MapFidelity]]) -> None:
    """How well each variant's feature maps agree with PyTorch's, a column per map; nothing where there are none."""
    names = list(dict.fromkeys(name for maps in variants.values() for name in maps))
    if names:
        rows = [
            (variant, *(f"{each.agreement_mean:.5f} / {each.agreement_min:.5f}" for each in maps.values()))
            for variant, maps in variants.items()
        ]
        print_table("Feature maps: agreement with PyTorch's, mean / lowest; 1 if equal:", ("variant", *names), rows)


def note_unread(folder: Path) -> None:
    """Says which pictures of a folder are passed over, if any."""
    if found := count_unread(folder):
        kinds = ", ".join(f"{count} {ending}" for ending, count in found.items())
        note(f"passed over: {kinds} in {folder}; convert them to JPEG or PNG")


def say(line: str) -> None:
    """Text on standard output."""
    standard_output().print(printable(line), soft_wrap=True)


def print_json(value: dict[str, Any]) -> None:
    """Prints what a program is to read, on standard output; null stands for NaN and infinities, which JSON lacks."""
    click.echo(json.dumps(finite(value), indent=2))


def note(line: str) -> None:
    """A line about progress, on standard error."""
    standard_error().print(printable(line.replace("\n", "\\n")), soft_wrap=True)


class Bar:
    """A progress bar with rate and time left; plain lines where standard error is no terminal."""

    def __init__(self, label: str, total: int, unit: str = "images") -> None:
        """`total` in units; the rate is shown in units per second."""
        self._label, self._total, self._unit = label, total, unit
        self._progress = ProgressBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=standard_error(),
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total, rate="")
        self._start = self._last_line = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Bar:
        if standard_error().is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if standard_error().is_terminal:  # elsewhere it was not started, and stopping prints an empty line
            self._progress.stop()

    def update(self, done: int, total: int) -> None:
        """`done` units of `total`."""
        now = time.monotonic()
        if self._first is None:  # what came before the first call is not its speed
            self._first, self._start = done, now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        if standard_error().is_terminal:
            self._progress.update(self._task, completed=done, total=total, rate=self._show(rate))
        elif now - self._last_line > PLAIN_LINE_EVERY and rate:
            self._last_line = now
            left = (total - done) / rate
            note(f"{self._label}: {done} of {total}, {self._show(rate)}, {left:.0f} s left")

    def _show(self, rate: float) -> str:
        return f"{rate:.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s"


class Reporter(logging.Handler):
    """Shows what the library reports by logging: progress as a bar, all else as a line."""

    def __init__(self) -> None:
        super().__init__()
        self._bars = ExitStack()
        self._label = ""
        self._bar: Bar | None = None

    def emit(self, record: logging.LogRecord) -> None:
        progress = getattr(record, "progress", None)
        if progress is None:
            note(record.getMessage())
        else:
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        if self._bar is None or progress.label != self._label:
            self._bars.close()
            self._label = progress.label
            self._bar = self._bars.enter_context(Bar(progress.label, progress.total, progress.unit))
        self._bar.update(progress.done, progress.total)
        if progress.done >= progress.total:
            self.close()

    def close(self) -> None:
        self._bars.close()
        self._bar = None
        super().close()


@contextmanager
def reporting() -> Iterator[None]:
    """Shows what the library reports while the block runs."""
    reporter = Reporter()
    levels = {logging.getLogger("byol_edge"): logging.INFO, logging.getLogger(PROGRESS): logging.DEBUG}
    before = {logger: logger.level for logger in levels}
    (library, *_) = levels
    library.addHandler(reporter)
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        library.removeHandler(reporter)
        reporter.close()
        for logger, level in before.items():
            logger.setLevel(level)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turns a failing import inside the block into a line that says what to install."""
    _keep_openmp_from_spinning()
    try:
        with ending_at_once():
            yield
    except (ImportError, OSError) as error:  # OSError: a shared library that cannot be loaded
        name = getattr(error, "name", None)
        what = f"needs {name}, which is not installed" if name else f"cannot start ({error})"
        raise ByolEdgeError(f"this command {what}: pip install 'byol-edge[{extra}]'") from error


def _keep_openmp_from_spinning() -> None:
    """Says to OpenMP, before PyTorch loads it, how long its threads may spin at a barrier, unless the user has said so.

    Beside other work on the machine, spinning threads wait for those that have no core (docs/training.md has figures).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "3000"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def share(value: float | None) -> str:
    """A share or an accuracy, .xxx; a dash where it was not measured."""
    return "–" if value is None else f"{value:.3f}"


def say_pairs(title: str, pairs: dict[str, str]) -> None:
    say(title)
    for name, value in pairs.items():
        say(f"  {name:<12}{value}")
