"""Any encoder by its name, ready to embed: a bundle or a model file on its engine, every other start by PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from ..runtime.bundle import MANIFEST
from ..runtime.encoder import Encoder
from ..runtime.errors import UsageError
from ..runtime.fidelity import Vectors
from ..runtime.model_file import is_model_file
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.run import ENCODER, EncoderSpec, Run
from ..runtime.stream import Streamer
from .backbones import build_backbone, embedding_size, resolve_stem
from .eager import EagerEncoder
from .network import InferenceNetwork
from .normalization import Channels, choose_normalization
from .starts import Start, find_start
from .weights import load_network, load_weights, read_tail


class ImageEncoder(Streamer, Protocol):
    """What an Encoder and an EagerEncoder have in common."""

    preprocessing: Preprocessing

    def run(self, pixels: Pixels) -> Vectors:
        """Vectors `[N, D]` of images uint8 `[N, image_size, image_size, 3]`."""
        ...


@dataclass(frozen=True)
class Choice:
    """What weights do not say of themselves, or what is to be otherwise; None is "as the weights say".

    `fit`: how an image is made square. `default_size`: the image size of weights that do not say theirs.
    """

    backbone: str | None = None
    image_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None
    fit: str = "crop"
    default_size: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A start's network with its weights, in eval mode, and what was taken for granted.

    `tail`: what follows the backbone where the weights are of a run of ours that ends in more; else the identity.
    """

    spec: EncoderSpec
    backbone: nn.Module
    tail: nn.Sequential
    assumptions: tuple[str, ...]


def load_start(start: Start, choice: Choice) -> Loaded:
    """The network of a start. Raises UsageError where neither it nor the choice says what is needed, and RunError."""
    start.check_backbone(choice.backbone or start.backbone)
    name = choice.backbone or start.backbone
    side = choice.image_size or start.image_size or choice.default_size
    if name is None or side is None:
        missing = {"backbone": "NAME"} if name is None else {"image_size": "PIXELS"}
        raise UsageError(f"{start.name} does not say what it was trained on; give {{{next(iter(missing))}}}", **missing)
    mean, std, guesses = choose_normalization(start, choice.mean, choice.std)
    stem = start.stem or resolve_stem(name, side, "auto")
    backbone = build_backbone(name, side, stem)
    tensors = start.read()
    load_weights(tensors, backbone, name, start.name)
    tail = read_tail(tensors, start.name)
    size = embedding_size(nn.Sequential(backbone, tail), side)
    spec = EncoderSpec(name, stem, size, Preprocessing(side, mean, std, choice.fit))
    return Loaded(spec, backbone.eval(), tail.eval(), (*start.assumptions, *guesses))


def open_encoder(name: str, choice: Choice | None = None, device: str | torch.device = "cpu") -> ImageEncoder:
    """The encoder that a name means: a bundle, an .onnx or .xml file of one, a run, or a start (models/starts.py).

    `choice`: of a start, as in load_start. `device`: that PyTorch runs on. Raises BundleError, EngineError, RunError
    and UsageError.
    """
    path = Path(name)
    if (path / MANIFEST).exists() or is_model_file(path):
        return Encoder(path)
    if Run(path).exists:
        trained = Run(path).read_encoder()
        return EagerEncoder(load_network(trained.weights, trained.spec, str(path / ENCODER)), trained.spec, device)
    loaded = load_start(find_start(name, choice.backbone if choice else None), choice or Choice())
    return EagerEncoder(InferenceNetwork(loaded.backbone, loaded.spec.preprocessing, loaded.tail), loaded.spec, device)
