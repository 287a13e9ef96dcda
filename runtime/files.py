"""Files and folders that are written completely or not at all."""

import ctypes
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .errors import ByolEdgeError, OutputExistsError

# What follows _prefix in the name of a temporary file or folder. The whole name has to fit: "b.20261124" is another
# output than "b", and its process may be alive.
_LEFT_OVER = re.compile(r"(?P<process>\d+)(-\d+)?\.(?P<kind>part|old)(\.[^.]*)?")
# Of renameat2(2): relative to the working directory; the two change places.
_HERE, _RENAME_EXCHANGE = -100, 2


def sha256(content: bytes) -> str:
    """The sha256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def to_json(value: Any) -> str:
    """JSON as this project writes it: sorted, indented, with a final newline, so that equal values are equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def finite(value: Any) -> Any:
    """What JSON can hold of a value: null stands for NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; renames it to `path` when the block succeeds.

    An error, a full disk or a kill inside the block leaves whatever was at `path` before.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file to write", str(path))
    if path.exists() and not path.is_file():  # the file would take the place of /dev/null
        raise OSError(errno.EINVAL, "is a device or a pipe, not a file to write", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_over(path)
    # The suffix stays, because writers such as matplotlib's choose the format by it.
    part = path.with_name(f"{_prefix(path)}{os.getpid()}-{threading.get_ident()}.part{path.suffix}")
    try:
        yield part
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, busy: ByolEdgeError) -> Iterator[None]:
    """Keeps other processes off while the block runs, by a lock on `file`, which is made if need be; else `busy`.

    The system releases the lock when the process ends, however it ends. Where the system or the file system has no
    locks, there is none.
    """
    with file.open("a") as handle:
        try:
            import fcntl  # not every system has it

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except (ImportError, OSError):
            pass
        if not file.exists() or not os.path.samestat(file.stat(), os.fstat(handle.fileno())):
            raise busy  # its holder has just finished, and deleted it
        _HELD.add(handle.fileno())
        try:
            yield
        finally:
            _HELD.discard(handle.fileno())


def _let_go_of_locks() -> None:
    """A forked child, such as a data loader's worker, would hold its parent's locks for as long as it lives."""
    if _HELD:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for held in _HELD:
            os.dup2(nothing, held)
        os.close(nothing)


# The file descriptors of the locks that this process holds.
_HELD: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_locks)


def write_text(path: Path, text: str) -> None:
    """Writes a text file completely or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class FolderKind:
    """How a folder that this project wrote is recognized: it holds `marker`, and only `names` (`*` is a wildcard)."""

    name: str
    marker: str
    names: tuple[str, ...]

    def strangers(self, folder: Path) -> list[str]:
        """What is in `folder` and does not belong to this kind."""
        return sorted(entry.name for entry in folder.iterdir() if not self.knows(entry.name))

    def knows(self, name: str) -> bool:
        """Whether a folder of this kind may hold it."""
        return any(fnmatchcase(name, each) for each in self.names)


@contextmanager
def whole_folder(path: Path, overwrite: bool, kind: FolderKind) -> Iterator[Path]:
    """Gives a temporary folder beside `path` to fill; renames it to `path` when the block succeeds."""
    path = path.absolute()
    check_output(path, overwrite, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_over(path)
    part = path.with_name(f"{_prefix(path)}{os.getpid()}-{threading.get_ident()}.part")
    part.mkdir()
    try:
        yield part
        for file in part.rglob("*"):
            _flush(file)
        _put_in_place(part, path, overwrite, kind)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_output(path: Path, overwrite: bool, kind: FolderKind) -> None:
    """Raises OutputExistsError if `path` is taken.

    With `overwrite`, a folder of that kind may be replaced, if nothing else is in it: overwriting must never be able
    to delete somebody's photographs.
    """
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    is_ours = not path.is_symlink() and (path / kind.marker).is_file()
    if is_ours and not overwrite:
        raise OutputExistsError(
            "{out} exists already; choose another place, or replace it: {overwrite}", out=path, overwrite=True
        )
    if not is_ours:
        raise OutputExistsError(
            f"{{out}} is not a {kind.name}, so {{overwrite}} does not replace it; choose another place",
            out=path,
            overwrite=True,
        )
    strangers = kind.strangers(path)
    if strangers:
        raise OutputExistsError(
            f"{{out}} also holds {strangers[0]}, which {{overwrite}} would delete; move it first",
            out=path,
            overwrite=True,
        )


def _put_in_place(part: Path, path: Path, overwrite: bool, kind: FolderKind) -> None:
    """Renames `part` to `path`, or lets them change places, so that there is a whole folder at every moment."""
    try:
        part.rename(path)  # the system refuses where a folder with something in it is
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        check_output(path, overwrite, kind)  # it may have appeared meanwhile
        if not _exchange(part, path):
            _replace_in_two_steps(part, path)
    _flush(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done = rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0
    if not done and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    return done


def _replace_in_two_steps(part: Path, path: Path) -> None:
    """What was there is moved aside first; _clear_left_over puts it back if the process is killed in between."""
    aside = part.with_suffix(".old")
    path.rename(aside)
    try:
        part.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _prefix(path: Path) -> str:
    """How the names of temporary files for `path` begin; a long name is cut to leave room for the rest."""
    return f".{os.fsdecode(os.fsencode(path.name)[:150])}."


def _clear_left_over(path: Path) -> None:
    """Deletes what a killed process left beside `path`, or puts it back if it is what was at `path`."""
    prefix = _prefix(path)
    for left in path.parent.glob(f"{glob.escape(prefix)}*"):
        name = _LEFT_OVER.fullmatch(left.name.removeprefix(prefix))
        if name is None or _is_alive(int(name["process"])):
            continue
        if name["kind"] == "old" and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number as large as that
        return False
    except PermissionError:  # somebody else's, so alive
        pass
    return True


def _flush(path: Path) -> None:
    """Asks the system to write a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
