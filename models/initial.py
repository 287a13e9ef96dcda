"""Files of weights that somebody trained: their tensors, found by name and put into a backbone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..runtime.errors import RunError
from ..runtime.run import ENCODER
from ..runtime.untrusted import MOST_STATE, read_bytes
from .backbones import SMALL_STEM_KEY
from .layouts import find_names


def load_weights(state: Mapping[str, Tensor], backbone: nn.Module, start: str, name: str) -> None:
    """Puts the weights of a start into a backbone: every tensor, or a RunError that says which does not match.

    `start` and `name`: what the weights and the backbone are called. Classifier, projector and so on are passed over.
    """
    backbone.load_state_dict(_find_backbone(state, backbone.state_dict(), start, name))


def find_file(path: Path) -> Path:
    """The file of weights that a path means: of a run or a bundle, or itself. Raises RunError if there is none."""
    try:
        file = path / ENCODER if path.is_dir() else path
        if file.is_file():  # a pipe or a device would never end
            return file
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
    """The tensors of a .safetensors file, or of a state dict by torch.save, bare or inside a larger one."""
    content = read_file(file)
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        found = max(_state_dicts(state), key=len, default={})
    except SafetensorError as error:
        raise RunError(f"{file}: not a safetensors file, or damaged ({error})") from error
    except Exception as error:  # whatever a damaged pickle raises
        raise RunError(f"{file}: not a checkpoint of plain tensors, or damaged") from error
    if not found:
        raise RunError(f"{file}: holds no state dict")
    return found


def _state_dicts(content: object) -> Iterator[dict[str, Tensor]]:
    """The tensors of each dict in a checkpoint: a state dict may lie under "state_dict", "model" or "objective"."""
    if isinstance(content, Mapping):
        yield {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        for value in content.values():
            yield from _state_dicts(value)


def _find_backbone(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], start: str, name: str
) -> dict[str, Tensor]:
    """The tensors of `expected`, found in `state` by layouts.py."""
    names = find_names(state, expected)
    if names is None:
        raise RunError(f"{start}: no weights of {name} (it holds no {next(iter(expected))})")
    for key, tensor in expected.items():
        found = state.get(names[key])
        if found is None or found.shape != tensor.shape or found.layout != torch.strided:
            what = "is not there" if found is None else f"is {list(found.shape)}, not {list(tensor.shape)}"
            stem = "; another stem (standard or small) may fit" if key == SMALL_STEM_KEY and found is not None else ""
            raise RunError(f"{start}: not the weights of this {name}: {names[key]} {what}{stem}")
        if found.dtype.is_floating_point != tensor.dtype.is_floating_point or found.is_complex():
            is_not = f"{names[key]} is {found.dtype}, not {tensor.dtype}"
            raise RunError(f"{start}: not the weights of this {name}: {is_not}")
        if not found.float().isfinite().all():
            raise RunError(f"{start}: {names[key]} holds values that are no finite numbers")
    return {key: state[name] for key, name in names.items()}
