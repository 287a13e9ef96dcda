"""Weights to start a training from, other than random ones: a run's, a checkpoint's, or timm's pretrained ones."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..runtime.bundle import MANIFEST, Bundle
from ..runtime.errors import RunError, UsageError
from ..runtime.preprocessing import Preprocessing
from ..runtime.run import ENCODER, EncoderSpec, Run, read_description
from .backbones import SMALL_STEM_KEY
from .layouts import find_names

TIMM = "timm"

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Normalization:
    """What a network's input is: `(pixel / 255 - mean) / std`, by channel. `guessed`: the weights do not say it."""

    mean: Channels = Preprocessing.mean
    std: Channels = Preprocessing.std
    guessed: bool = False


def initial_normalization(init: str | None, backbone: str) -> Normalization:
    """As the initial weights were trained, where they say so: those of a run, a bundle or timm. ImageNet's for others.

    Raises UsageError if they are of another backbone.
    """
    if init is None:
        return Normalization()
    if init == TIMM:
        config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
        if config is None or not config.has_weights:
            raise UsageError(f"{{init}}: timm has no pretrained weights of {backbone}", init=init)
        return Normalization(_three(config.mean), _three(config.std))
    found = _find_spec(Path(init))
    if found is None:
        return Normalization(guessed=True)
    what, spec = found
    if spec.backbone != backbone:
        raise UsageError(f"{{init}}: {what} of {spec.backbone}, not of {backbone}", init=init)
    return Normalization(spec.preprocessing.mean, spec.preprocessing.std)


def _find_spec(path: Path) -> tuple[str, EncoderSpec] | None:
    """What kind of thing holds the weights, and how it describes them; None for a checkpoint from elsewhere."""
    file = _find_file(path)
    if path.is_dir() and (path / MANIFEST).exists():
        return "a bundle", Bundle.open(path).encoder_spec
    if Run(path).exists:
        return "a run", Run(path).read_encoder().spec
    if file.suffix == ".safetensors":
        try:
            return "a run's file of weights", EncoderSpec.from_json(read_description(file.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # of another project; what cannot be read is named when the weights are
    return None


def load_initial(init: str, backbone: nn.Module, name: str) -> None:
    """Puts the weights of `init` into a backbone: every tensor, or a RunError that says which does not match.

    `init`: "timm" (which downloads them), a run, a bundle, a .safetensors file, or a file of torch.save with a state
    dict, bare or inside a larger one. Classifier, projector and the like are passed over.
    """
    state = _download(name) if init == TIMM else _read_state(Path(init))
    expected = backbone.state_dict()
    backbone.load_state_dict(_find_backbone(state, expected, init, name))


def _download(name: str) -> dict[str, Tensor]:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every attempt
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the hub's client raises errors of many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{{init}}: the pretrained weights of {name} cannot be had ({reason}); it downloads them, so it needs a "
            "network the first time; or start from random weights, without it",
            init=TIMM,
        ) from error


def _find_file(path: Path) -> Path:
    """The file of weights that a path means. Raises RunError if there is none."""
    try:
        file = path / ENCODER if path.is_dir() else path
        if file.is_file():  # a pipe or a device would never end
            return file
        reason = "not a file" if file.exists() else "no such file"
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
    raise RunError(f"{str(path)[:200]}: no run, no bundle, no checkpoint, and not the word timm ({reason})")


def _read_state(path: Path) -> Mapping[str, Tensor]:
    file = _find_file(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror})") from error
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
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], init: str, name: str
) -> dict[str, Tensor]:
    """The tensors of `expected`, found in `state` by layouts.py."""
    names = find_names(state, expected)
    if names is None:
        raise RunError(f"{init}: no weights of {name} (it holds no {next(iter(expected))})")
    for key, tensor in expected.items():
        found = state.get(names[key])
        if found is None or found.shape != tensor.shape or found.layout != torch.strided:
            what = "is not there" if found is None else f"is {list(found.shape)}, not {list(tensor.shape)}"
            stem = "; another stem (standard or small) may fit" if key == SMALL_STEM_KEY and found is not None else ""
            raise RunError(f"{init}: not the weights of this {name}: {names[key]} {what}{stem}")
        if found.dtype.is_floating_point != tensor.dtype.is_floating_point or found.is_complex():
            raise RunError(f"{init}: not the weights of this {name}: {names[key]} is {found.dtype}, not {tensor.dtype}")
        if not found.float().isfinite().all():
            raise RunError(f"{init}: {names[key]} holds values that are no finite numbers")
    return {key: state[name] for key, name in names.items()}


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third
