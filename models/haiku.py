"""DeepMind's BYOL checkpoints (github.com/google-deepmind/deepmind-research, byol/): haiku's parameters in a pickle.

A ResNet of haiku's is torchvision's but for its padding: see padding.py.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..runtime.errors import RunError, brief
from .array_pickle import Array, Mentioned, read_pickle

# Of a _ByolExperimentState, in order: the names are not in the pickle where its class was importable.
FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")
NETWORKS = {"": ("online_params", "online_state"), "target_": ("target_params", "target_state")}
# The four bytes that torch.save began with before it wrote .zip files, after the version of the pickle.
TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# Blocks in each group of the ResNets that timm has.
DEPTHS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
    (3, 24, 36, 3): "resnet200",
}

_FIRST = re.compile(r"[^/]+/~/initial_(conv|batchnorm)(?:_\d+)?")
_BLOCK = re.compile(r"[^/]+/~/block_group_(\d)/~/block_(\d+)/~/(?:(conv|batchnorm)_(\d)|shortcut_(conv|batchnorm))")
_HEAD = re.compile(r"(projector|predictor)/(linear|batch_norm|linear_1)")
_HEAD_PLACES = {"linear": "0", "batch_norm": "1", "linear_1": "3"}
_VALUES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}
_AVERAGES = {"mean_ema": "running_mean", "var_ema": "running_var"}


def is_haiku(content: bytes) -> bool:
    """Whether a file is a pickle, and not one that torch.save wrote."""
    return content[:1] == b"\x80" and not content[2:].startswith(TORCH)


def read_haiku(content: bytes, name: str) -> dict[str, Tensor]:
    """Both networks of a checkpoint under torchvision's names, as this project calls them: read without running any.

    "backbone.…" and "target_backbone.…" are ResNets without `fc`; "projector.…", "target_projector.…" and
    "predictor.…" have layers 0, 1 and 3. The tensors share the file's memory and are not to be written to. Raises
    RunError, naming the file.
    """
    try:
        parts = _find_parts(read_pickle(content))
        tensors = {
            f"{prefix}{key}": tensor
            for prefix, (params, state) in NETWORKS.items()
            for key, tensor in _convert(parts.get(params), parts.get(state))
        }
    except ValueError as error:
        raise RunError(f"{name}: {brief(error)}") from error
    if "backbone.conv1.weight" not in tensors:
        raise RunError(f"{name}: a pickle without online_params of a ResNet of haiku's")
    return tensors


def name_backbone(tensors: Mapping[str, Tensor], name: str) -> str:
    """timm's name for what read_haiku found. Raises RunError, naming the file, for a ResNet that timm has none for."""
    blocks = {match[0] for key in tensors if (match := re.match(r"backbone\.layer(\d)\.\d+", key))}
    depth = tuple(sum(block.startswith(f"backbone.layer{group}.") for block in blocks) for group in range(1, 5))
    width = len(tensors["backbone.conv1.weight"]) // 64
    if "backbone.layer1.0.conv3.weight" not in tensors:
        raise RunError(
            f"{name}: a ResNet of basic blocks, which DeepMind's code builds with a shortcut convolution in the first "
            "group too; no backbone here has that"
        )
    if width != 1 or depth not in DEPTHS:
        raise RunError(f"{name}: a ResNet of {'-'.join(map(str, depth))} blocks, {width} times as wide; timm has none")
    return DEPTHS[depth]


def _find_parts(value: Any) -> Mapping[str, Any]:
    """The parameters and states by FIELDS, in the plain form or behind "experiment_state"."""
    found = _as_dict(value)
    state = found.get("experiment_state", value)
    if isinstance(state, Mentioned):
        return dict(zip(state.name.fields or FIELDS, state.parts, strict=False))
    return _as_dict(state)


def _as_dict(value: Any) -> dict[str, Any]:
    """A dict, also as one of haiku's own kinds of dict; empty for anything else."""
    for _ in range(4):
        if isinstance(value, dict):
            return {key: each for key, each in value.items() if isinstance(key, str)}
        if not isinstance(value, Mentioned):
            break
        value = value.parts[0] if value.parts else value.state
    return {}


def _convert(params: Any, state: Any) -> Iterator[tuple[str, Tensor]]:
    for path, values in _as_dict(params).items():
        place = _rename(path)
        if place is not None:
            for key, value in _as_dict(values).items():
                yield f"{place}.{_VALUES.get(key, key)}", _as_weight(value)
    for path, values in _as_dict(state).items():
        layer, _, average = path.rpartition("/~/")
        place = _rename(layer)
        if place is not None and average in _AVERAGES:
            found = _as_dict(values)
            yield f"{place}.{_AVERAGES[average]}", _as_tensor(found.get("average")).flatten()
            if average == "mean_ema":
                yield f"{place}.num_batches_tracked", _as_tensor(found.get("counter")).long()


def _rename(path: str) -> str | None:
    """torchvision's name for a module of haiku's; None for the classifier. What is not known keeps its own name."""
    if match := _FIRST.fullmatch(path):
        return "backbone.conv1" if match[1] == "conv" else "backbone.bn1"
    if match := _BLOCK.fullmatch(path):
        group, block, kind, number, shortcut = match.groups()
        place = f"backbone.layer{int(group) + 1}.{int(block)}"
        if shortcut is not None:
            return f"{place}.downsample.{0 if shortcut == 'conv' else 1}"
        return f"{place}.{'conv' if kind == 'conv' else 'bn'}{int(number) + 1}"
    if match := _HEAD.fullmatch(path):
        return f"{match[1]}.{_HEAD_PLACES[match[2]]}"
    return f"backbone.{path}" if "/~/" in path else None


def _as_weight(value: Any) -> Tensor:
    """Convolutions from `[H, W, in, out]`, linear layers from `[in, out]`, norms from `[1, 1, 1, C]`."""
    tensor = _as_tensor(value)
    if tensor.ndim > 1 and tensor.shape[:-1].numel() == 1:
        return tensor.flatten()
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)
    return tensor.T if tensor.ndim == 2 else tensor


def _as_tensor(value: Any) -> Tensor:
    if not isinstance(value, Array) or value.values is None:
        raise ValueError("a pickle without an array where a parameter should be")
    values = value.values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the memory is read-only: nothing here writes to it
        return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))
