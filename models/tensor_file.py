"""Files of tensors that anybody may have written: their tensors by name. Nothing that such a file asks for is run."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..runtime.errors import RunError
from ..runtime.run import ENCODER
from ..runtime.untrusted import MOST_STATE, read_bytes
from .haiku import is_haiku, name_backbone, read_haiku
from .layouts import HAIKU
from .weights import read_state

# What a file begins with, and what it then is instead of a checkpoint.
OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    b"\x89HDF": "an HDF5 file, as Keras writes them; only PyTorch's checkpoints and safetensors are read",
    b"\x1f\x8b": "a compressed archive; unpack it",
    b"<!DOCTYPE": "a web page, not the file itself; download it again",
    b"<html": "a web page, not the file itself; download it again",
    b"GGUF": "a GGUF file; only PyTorch's checkpoints and safetensors are read",
}
LONGEST_NAME = 500
# Whatever a pickle names in these runs something, or reaches for it.
DANGEROUS = frozenset(
    (
        "os",
        "posix",
        "nt",
        "sys",
        "subprocess",
        "shutil",
        "socket",
        "importlib",
        "runpy",
        "pty",
        "ctypes",
        "code",
        "pickle",
    )
)
RUNNING = frozenset(("eval", "exec", "compile", "__import__", "open", "input", "breakpoint", "setattr", "delattr"))


def find_file(path: Path) -> Path:
    """The file of weights that a path means: of a run or a bundle, or itself. Raises RunError if there is none."""
    try:
        file = path / ENCODER if path.is_dir() else path
        if file.is_file():  # a pipe or a device would never end
            return file
        if path.is_dir() and any(path.glob("*.index.json")):
            raise RunError(f"{path}: a folder of shards; load them and save their state dict as one file")
        reason = "not a file" if file.exists() else "no such file"
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
    raise RunError(f"{str(path)[:200]}: no run, no bundle, no checkpoint, and no name of a start ({reason})")


def read_file(file: Path) -> bytes:
    try:
        return read_bytes(file, MOST_STATE)
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror})") from error


def read_tensors(file: Path) -> Mapping[str, Tensor]:
    """All tensors of a safetensors file or of what torch.save wrote, by their path in it ("state_dict.conv1.weight").

    What the file is, its content says, not its name. Raises RunError, which says what it is instead.
    """
    content = read_file(file)
    kind = next((kind for begins, kind in OTHERS.items() if content.startswith(begins)), None)
    if kind is not None:
        raise RunError(f"{file}: {kind}")
    if not content:
        raise RunError(f"{file}: empty (0 bytes), so damaged")
    tensors = _read_content(content, file)
    sound = {name: tensor for name, tensor in tensors.items() if _is_sound(name, tensor)}
    if not sound:
        raise RunError(f"{file}: holds no tensors that a network could have")
    return sound


def _read_content(content: bytes, file: Path) -> Mapping[str, Tensor]:
    if is_haiku(content):
        tensors = read_haiku(content, str(file))
        name_backbone(tensors, str(file))
        return {f"{HAIKU}{name}": tensor for name, tensor in tensors.items()}
    return read_state(content, str(file)) if content[8:9] == b"{" else _read_pickle(content, file)


def _is_sound(name: str, tensor: Tensor) -> bool:
    """Whether a network could have it: of few bytes, a view that repeats them can have any size."""
    repeats = (
        tensor.layout == torch.strided
        and not tensor.is_meta
        and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    )
    return len(name) <= LONGEST_NAME and name.isprintable() and not repeats


def _read_pickle(content: bytes, file: Path) -> Mapping[str, Tensor]:
    names = _find_unknown(content, file)
    running = sorted(name for name in names if _runs(name))
    if running:
        raise RunError(f"{file}: would run {running[0]} where it is unpickled; do not use this file")
    try:
        state = _load(content, names)
        tensors = dict(_flatten(state, "", set()))
    except Exception as error:  # whatever a damaged pickle raises
        raise RunError(f"{file}: not a checkpoint of plain tensors, or damaged") from error
    if tensors:
        return tensors
    if isinstance(state, Mapping) and {"state", "param_groups"} <= set(state):
        raise RunError(f"{file}: an optimizer's state, which holds no network")
    if names:
        raise RunError(
            f"{file}: holds whole modules ({min(names, key=_of_library)}, …), which take their code to read. Where you "
            "trust it, load it with torch.load(…, weights_only=False) and save its state_dict()"
        )
    raise RunError(f"{file}: holds no state dict")


def _find_unknown(content: bytes, file: Path) -> list[str]:
    """The classes and functions that a checkpoint mentions and torch does not load by itself, "module.name"."""
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            return _find_unknown_before_zip(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            kept = {name.partition("/")[2] for name in archive.namelist()}
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if "constants.pkl" in kept:
            raise RunError(f"{file}: a TorchScript archive; save torch.jit.load(…).state_dict() in its place")
        if unpacked > len(content):  # torch compresses nothing
            raise RunError(
                f"{file}: unpacks to {unpacked / 1e6:.0f} MB, and torch.save packs nothing; not a checkpoint"
            )
        return torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    except RunError:
        raise
    except Exception as error:  # whatever a damaged archive raises
        raise RunError(f"{file}: not a checkpoint of plain tensors, or damaged") from error


def _find_unknown_before_zip(content: bytes) -> list[str]:
    """The same for the format of torch before 1.6: pickles one after the other, the fourth of them the content."""
    stream = io.BytesIO(content)
    found: set[str] = set()
    for _ in range(4):
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "GLOBAL":
                # Protocol 2 has the names that Python 2 used.
                module, _, name = str(argument).partition(" ")
                found.add(f"{IMPORT_MAPPING.get(module, module)}.{name}")
    return [name for name in found if not name.startswith(("torch._", "torch.storage", "collections.O", "_codecs."))]


def _runs(name: str) -> bool:
    module, _, attribute = name.partition(".")
    return module in DANGEROUS or (module == "builtins" and attribute in RUNNING)


def _of_library(name: str) -> bool:
    return name.startswith(("torch.", "collections.", "numpy", "builtins."))


def _load(content: bytes, names: Collection[str]) -> object:
    """What torch.save wrote, without the classes and functions of these names, whose objects come out empty."""
    stand_ins: dict[str, type] = {name: type(name, (_Inert,), {}) for name in names}
    while True:
        try:
            with torch.serialization.safe_globals([(kind, name) for name, kind in stand_ins.items()]):
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Some are dicts, to be filled: torch says so of one after the other.
            filled = [name for name, kind in stand_ins.items() if kind is not _EmptyDict and f"{kind}" in str(error)]
            if not filled:
                raise
            stand_ins.update(dict.fromkeys(filled, _EmptyDict))


class _Inert(list[object]):
    """In place of an object of a class that a checkpoint mentions: takes all that it is given, and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return list.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _EmptyDict:
    """In place of a dict of another class: torch fills three classes of dicts only, of which Counter has attributes."""

    def __new__(cls, *_: object, **__: object) -> Counter[object]:  # type: ignore[misc]
        return Counter()


def _flatten(content: object, path: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dicts, by path. Optimizers number theirs, which are not wanted.

    Each dict is entered once: a few hundred bytes can refer to the same ones 2⁴⁰ times.
    """
    if isinstance(content, Tensor):
        yield path, content
    elif isinstance(content, Mapping) and id(content) not in seen:
        seen.add(id(content))
        for key, value in content.items():
            if isinstance(key, str):
                yield from _flatten(value, f"{path}.{key}" if path else key, seen)
