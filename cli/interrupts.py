"""Ctrl-C: it raises KeyboardInterrupt while a command works; before, afterwards and in imports it ends the process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, main_thread
from typing import Any

RAISE_AGAIN_AFTER = 0.05  # seconds


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C raise KeyboardInterrupt in the block, which no library turns into another error.

    The extension modules of some make an ImportError of it ("not installed"), a data loader a RuntimeError. A second
    Ctrl-C while the block cleans up raises it again; one after the block ends the process.

    Where the process ignores Ctrl-C, or has a handler of its own for it, nothing is changed.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    process, interrupts = os.getpid(), 0

    def interrupt(*_: object) -> None:
        nonlocal interrupts
        if os.getpid() == process:  # a data loader's workers inherit this; their parent ends them
            interrupts += 1
            raise KeyboardInterrupt

    hook = sys.unraisablehook
    sys.unraisablehook = _raise_again
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if interrupts and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.unraisablehook = hook


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Lets Ctrl-C end the process in the block, which imports and has begun nothing."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or handler in (signal.SIG_IGN, signal.default_int_handler):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _raise_again(lost: Any) -> None:
    """Of a KeyboardInterrupt that came in a destructor, Python would print the traceback, and go on."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        # A signal, as it also ends what the main thread waits for.
        Timer(RAISE_AGAIN_AFTER, signal.pthread_kill, (main_thread().ident, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)
