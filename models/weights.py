"""An encoder on disk: `encoder.safetensors` (a backbone's weights) and `encoder.json` (what it takes to build it)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..runtime.errors import RunError
from ..runtime.files import whole_file
from ..runtime.preprocessing import Preprocessing
from .backbones import build_backbone
from .network import InferenceNetwork
from .tail import PREFIX, load_tail

WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"


@dataclass(frozen=True)
class EncoderSpec:
    """What a backbone is, apart from its weights. `stem` is resolved: "small" or "standard"."""

    backbone: str
    stem: str
    embedding_size: int
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> EncoderSpec:
        preprocessing = Preprocessing.from_json(value["preprocessing"])
        return EncoderSpec(value["backbone"], value["stem"], int(value["embedding_size"]), preprocessing)


def read_description(run: Path) -> tuple[EncoderSpec, dict[str, Any]]:
    """What a run's encoder is, and its provenance. Raises OSError, or RunError for a damaged file."""
    try:
        content = json.loads((run / DESCRIPTION).read_text(encoding="utf-8"))
        return EncoderSpec.from_json(content), dict(content["provenance"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run / DESCRIPTION}: unreadable ({error}); train again, or resume the run") from error


def serialize_weights(backbone: nn.Module, tail: nn.Module | None = None) -> bytes:
    """A backbone's parameters and buffers as safetensors, and a tail's: the same bytes for the same weights."""
    state = backbone.state_dict()
    if tail is not None:
        state |= {f"{PREFIX}{name}": tensor for name, tensor in tail.state_dict().items()}
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def save_weights(path: Path, backbone: nn.Module) -> None:
    """Writes a backbone's weights as safetensors, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(serialize_weights(backbone))  # its own save_file keeps others from reading the file


def load_network(weights: bytes, spec: EncoderSpec, name: str) -> InferenceNetwork:
    """The network that embeds, with its tail if the weights have one. Raises RunError, naming the file."""
    state = _read(weights, name)
    tail = {key: tensor for key, tensor in state.items() if key.startswith(PREFIX)}
    backbone = _match({key: tensor for key, tensor in state.items() if key not in tail}, spec, name)
    return InferenceNetwork(backbone, spec.preprocessing, load_tail(tail))


def load_encoder(weights: bytes, spec: EncoderSpec, name: str) -> nn.Module:
    """The backbone in eval mode with these weights, every tensor matched. Raises RunError, naming the file."""
    return _match(_read(weights, name), spec, name)


def _read(weights: bytes, name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except SafetensorError as error:
        raise RunError(f"{name}: not a safetensors file, or damaged ({error})") from error


def _match(state: dict[str, Tensor], spec: EncoderSpec, name: str) -> nn.Module:
    backbone = build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem)
    expected = backbone.state_dict()
    differences = [
        *(f"{key} is missing" for key in expected.keys() - state.keys()),
        *(f"{key} is not of {spec.backbone}" for key in state.keys() - expected.keys()),
        *(
            f"{key} is {list(state[key].shape)}, not {list(expected[key].shape)}"
            for key in expected.keys() & state.keys()
            if state[key].shape != expected[key].shape
        ),
    ]
    if differences:
        raise RunError(f"{name}: {len(differences)} tensors differ from {spec.backbone}: {sorted(differences)[0]}, …")
    backbone.load_state_dict(state)
    return backbone.eval()


def untrained_encoder(spec: EncoderSpec, seed: int) -> nn.Module:
    """The same architecture with the weights that a seed draws, in eval mode: the floor for any claim of learning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem).eval()
