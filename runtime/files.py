"""Files and folders that are written whole or not at all."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import OutputExistsError


def sha256(content: bytes) -> str:
    """The sha256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def to_json(value: Any) -> str:
    """JSON as this project writes it: sorted, indented, a newline at the end, so that equal values are equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; renames it to `path` when the block ends well.

    An error, a full disk or a kill inside the block leaves whatever was at `path` before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_over(path)
    # The suffix stays, since writers such as matplotlib's choose the format by it.
    part = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, overwrite: bool, marker: str) -> Iterator[Path]:
    """Gives a temporary folder beside `path` to fill; renames it to `path` when the block ends well.

    `marker` is the file by which a folder of this kind is known: see `check_output`.
    """
    check_output(path, overwrite, marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_over(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        for file in part.rglob("*"):
            _flush(file)
        _replace_folder(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_output(path: Path, overwrite: bool, marker: str) -> None:
    """Raises OutputExistsError if `path` is taken.

    With `overwrite`, a folder may be replaced if it holds `marker` or nothing: `--overwrite` must never be able to
    delete somebody's photographs.
    """
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another --out, or replace it with --overwrite")
    if path.is_symlink() or not (path / marker).is_file():
        raise OutputExistsError(f"{path} holds no {marker}, so --overwrite does not replace it; choose another --out")


def _replace_folder(part: Path, path: Path) -> None:
    """Renames `part` to `path`; what was there is put aside first and deleted last."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(aside)
    try:
        part.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
    _flush(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _clear_left_over(path: Path) -> None:
    """Deletes what a killed process left beside `path`: parts whose process is no more."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part*"):
        process = part.name.removeprefix(f".{path.name}.").split(".")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _flush(path: Path) -> None:
    """Asks the system to put a file, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
