"""A backbone's weights as bytes: the safetensors file that a run and a bundle hold, and the network built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..runtime.errors import RunError, UsageError, brief
from ..runtime.run import DESCRIPTION, FORMAT_VERSION, EncoderSpec, Provenance
from .backbones import SMALL_STEM_KEY, build_backbone
from .matching import COUNTER
from .network import InferenceNetwork
from .tail import PREFIX, load_tail


def serialize_weights(backbone: nn.Module, tail: nn.Module | None = None) -> bytes:
    """A backbone's parameters and buffers as safetensors, and a tail's: the same bytes for the same weights."""
    return safetensors.torch.save(_plain(_state(backbone, tail)))


def serialize_encoder(
    backbone: nn.Module, spec: EncoderSpec, provenance: Provenance, tail: nn.Module | None = None
) -> bytes:
    """The same with what it takes to build the network again, and where it comes from, in the file's metadata."""
    description = {"format_version": FORMAT_VERSION, **spec.to_json(), "provenance": provenance.to_json()}
    metadata = {DESCRIPTION: json.dumps(description, sort_keys=True)}
    return safetensors.torch.save(_plain(_state(backbone, tail)), metadata)


def serialize_network(network: InferenceNetwork) -> bytes:
    """The same of a network whose backbone is a user's own module, under "backbone." and "tail.".

    Layers may share their weights. Raises UsageError where safetensors holds no such tensors.
    """
    state = {name: each for name, each in network.state_dict().items() if isinstance(each, Tensor)}
    kept = {name: each.clone() for name, each in state.items() if name not in ("scale", "shift")}
    try:
        return safetensors.torch.save(_plain(kept))
    except Exception as error:  # of each kind of tensor another
        raise UsageError(f"its weights cannot be written as a safetensors file ({brief(error)})") from error


def load_network(weights: bytes, spec: EncoderSpec, name: str) -> InferenceNetwork:
    """The network that embeds, with its tail if the weights have one. Raises RunError, naming the file."""
    return build_network(read_state(weights, name), spec, name)


def build_network(state: Mapping[str, Tensor], spec: EncoderSpec, name: str) -> InferenceNetwork:
    """The same of tensors that were read from a file of this name."""
    tail = {key: tensor for key, tensor in state.items() if key.startswith(PREFIX)}
    backbone = _match({key: tensor for key, tensor in state.items() if key not in tail}, spec, name)
    return InferenceNetwork(backbone, spec.preprocessing, read_tail(tail, name))


def read_tail(state: Mapping[str, Tensor], name: str) -> nn.Sequential:
    """The tail among the tensors of a file; the identity where there is none. Raises RunError, naming the file."""
    try:
        return load_tail(state)
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise RunError(f"{name}: what follows its backbone is not what export writes ({brief(error)})") from error


def load_encoder(weights: bytes, spec: EncoderSpec, name: str) -> nn.Module:
    """The backbone in eval mode with these weights, every tensor matched. Raises RunError, naming the file."""
    return _match(read_state(weights, name), spec, name)


def load_weights(tensors: Mapping[str, Tensor], backbone: nn.Module, name: str, start: str) -> None:
    """Puts tensors of these names into a backbone. Raises RunError unless each is there and of its shape.

    `name` and `start`: what the backbone and the weights are called. Counters of batches may be missing.
    """
    expected = backbone.state_dict()
    for key, tensor in expected.items():
        found = tensors.get(key)
        if found is None and not key.endswith(COUNTER):
            raise RunError(f"{start}: not the weights of this {name}: {key} is not there")
        if found is not None and found.shape != tensor.shape:
            stem = "; another stem (standard or small) may fit" if key == SMALL_STEM_KEY else ""
            what = f"{key} is {list(found.shape)}, not {list(tensor.shape)}"
            raise RunError(f"{start}: not the weights of this {name}: {what}{stem}")
    backbone.load_state_dict({**expected, **{key: tensors[key] for key in expected if key in tensors}})


def _state(backbone: nn.Module, tail: nn.Module | None) -> dict[str, Tensor]:
    following = tail.state_dict() if tail is not None else {}
    return {**backbone.state_dict(), **{f"{PREFIX}{name}": tensor for name, tensor in following.items()}}


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def read_state(weights: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises RunError, naming it."""
    try:
        return safetensors.torch.load(weights)
    except SafetensorError as error:
        raise RunError(f"{name}: not a safetensors file, or damaged ({error})") from error


def _match(state: dict[str, Tensor], spec: EncoderSpec, name: str) -> nn.Module:
    # Shapes first: a network that is built for nothing may not fit into memory.
    with torch.device("meta"):
        expected = build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem).state_dict()
    differences = [
        *(f"{key} is missing" for key in expected.keys() - state.keys()),
        *(f"{key} is not of {spec.backbone}" for key in state.keys() - expected.keys()),
        *(
            f"{key} is {list(state[key].shape)}, not {list(expected[key].shape)}"
            for key in expected.keys() & state.keys()
            if state[key].shape != expected[key].shape
        ),
        *(
            f"{key} is {state[key].dtype}, not {expected[key].dtype}"
            for key in expected.keys() & state.keys()
            if state[key].dtype != expected[key].dtype
        ),
    ]
    if differences:
        raise RunError(f"{name}: {len(differences)} tensors differ from {spec.backbone}: {sorted(differences)[0]}, …")
    backbone = build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem)
    backbone.load_state_dict(state)
    return backbone.eval()


def untrained_encoder(spec: EncoderSpec, seed: int) -> nn.Module:
    """The same architecture with the weights that a seed draws, in eval mode: the floor for any claim of learning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem).eval()
