"""Ctrl-C at chosen moments: in imports, in the work, where a library makes another error of it, and as Python ends."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from byol_edge.cli.interrupts import ending_at_once, interruptible

# The command as its entry point runs it, and Ctrl-C when the module argv[1] is looked for, or at exit.
INTERRUPTED = """
import atexit, os, signal, sys
moment = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, *_):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
if moment == "exit":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
from byol_edge.__main__ import main
main()
"""


def interrupt(moment: str, *arguments: object) -> tuple[int, str]:
    """The exit code and what was printed on standard error."""
    command = [sys.executable, "-c", INTERRUPTED, moment, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("moment", ["click", "rich", "byol_edge.cli.main", "PIL", "numpy"])
def test_in_the_imports_of_the_command_it_dies_silently(moment: str):
    assert interrupt(moment, "inspect", "x") == (-signal.SIGINT, "")


@pytest.mark.parametrize("moment", ["torch", "torch._C", "byol_edge.train.pretrain"])
def test_in_the_imports_of_a_training_it_dies_silently(tmp_path: Path, moment: str):
    pytest.importorskip("torch")
    assert interrupt(moment, "train", tmp_path, "--out", tmp_path / "run") == (-signal.SIGINT, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["onnxruntime", "onnxruntime.capi", "concurrent.futures.thread"])
def test_in_an_import_of_the_work_it_stops_in_a_line(finished_bundle: Path, photos: Path, tmp_path: Path, moment: str):
    code, printed = interrupt(moment, "embed", finished_bundle, photos, "-o", tmp_path / "v.npz")
    assert (code, printed) == (130, "byol-edge: stopped; the same command with --resume goes on\n")
    assert not (tmp_path / "v.npz").exists()


def test_as_python_ends_it_dies_silently(finished_bundle: Path):
    assert interrupt("exit", "inspect", finished_bundle) == (-signal.SIGINT, "")


@pytest.fixture
def as_in_the_command() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("error", [ImportError, RuntimeError, SystemError])
@pytest.mark.usefixtures("as_in_the_command")
def test_whatever_a_library_makes_of_it_it_is_an_interrupt(error: type[Exception]):
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error("not installed") from None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


@pytest.mark.usefixtures("as_in_the_command")
def test_an_error_without_an_interrupt_stays_what_it_is():
    with pytest.raises(ImportError), interruptible():
        raise ImportError


class Interrupting:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("as_in_the_command")
def test_in_a_destructor_it_is_not_lost(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(KeyboardInterrupt), interruptible():
        Interrupting()
        gc.collect()
        time.sleep(60)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("as_in_the_command")
def test_a_worker_process_leaves_it_to_its_parent():
    with interruptible():
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_a_handler_of_somebody_elses_stays(handler: signal.Handlers):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with interruptible(), ending_at_once():
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
