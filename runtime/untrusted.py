"""Files from elsewhere, read within bounds: regular files only, no larger and no deeper than such a file ever is.

A pipe would be waited for, /dev/zero never ends, and a few kilobytes of a packed file unpack to gigabytes.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import zipfile
from collections.abc import Collection
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

# Bytes: of a file of JSON, such as a manifest; of a model or a network's weights; of a training's whole state.
MOST_JSON, MOST_MODEL, MOST_STATE = 2**24, 2**33, 2**36
# Bytes that the packed arrays of an .npz file may unpack to, beyond the file's own size.
MOST_UNPACKED = 2**30
MOST_NESTED = 64

T = TypeVar("T")


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to read. Raises OSError, also for what is no regular file, such as a pipe."""
    # Without this flag, a pipe that nobody writes to would be waited for.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(handle, "rb")
    os.close(handle)  # Python would leave that of a folder open
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_bytes(path: Path, most: int) -> bytes:
    """A regular file's content. Raises OSError, also where it is larger than `most` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"{_size(size)}, where {_size(most)} are the most", str(path))
        content = file.read(size + 1)
    if len(content) != size:
        raise OSError(errno.EIO, "changed while it was read", str(path))
    return content


def read_json(path: Path) -> Any:
    """What a file of JSON holds. Raises OSError, and ValueError where it is none."""
    return parse_json(read_bytes(path, MOST_JSON))


def parse_json(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError where it is none, or nested deeper than anything that this project writes."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check_depth(value, MOST_NESTED)
    return value


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError("nested too deep")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(each, left - 1)


def to_dataclass(kind: type[T], value: dict[str, Any]) -> T:
    """A dataclass from JSON: what is missing is its default, what is unknown is passed over.

    Raises TypeError for a value of another type than the field's.
    """
    hints = get_type_hints(kind)
    known = {name: each for name, each in value.items() if name in hints}
    for name, each in known.items():
        if not isinstance(each, _types(hints[name])):
            raise TypeError(f"{name} is {str(each)[:40]}")
    return kind(**known)


def _types(hint: Any) -> tuple[type, ...]:
    """The types that a value of this annotation has when it was read from JSON; a whole number is a number, too."""
    types = tuple(get_origin(each) or each for each in (get_args(hint) if isinstance(hint, UnionType) else (hint,)))
    return (*types, int) if float in types else types


def load_arrays(source: Path | bytes, names: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, or of its bytes: all of them, or those with the given names.

    Raises ValueError, with a reason, for anything that is not an .npz file, or that unpacks to much more.
    """
    try:
        with open_regular(source) if isinstance(source, Path) else io.BytesIO(source) as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no .npz file")
            size = file.seek(0, io.SEEK_END)
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > size + MOST_UNPACKED:
                raise ValueError(f"unpacks from {_size(size)} to {_size(unpacked)}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                read = {name: arrays[name] for name in names or arrays.files}
            if any(array.size > array.nbytes for array in read.values()):  # numbers or names of no bytes, without end
                raise ValueError("arrays of nothing")
            return read
    except Exception as error:  # a damaged file makes zipfile, zlib and numpy raise almost anything
        strerror = error.strerror if isinstance(error, OSError) else None
        raise ValueError(strerror or str(error) or type(error).__name__) from error


def _size(count: int) -> str:
    return (
        f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB" if count >= 10**5 else f"{count} bytes"
    )
