"""A network that was not exported, to embed with as with an Encoder: by PyTorch, eager."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from ..runtime.cpus import available_cpus
from ..runtime.encoder import find_problem
from ..runtime.errors import EngineError
from ..runtime.fidelity import Vectors
from ..runtime.files import sha256, to_json
from ..runtime.golden import PYTORCH
from ..runtime.model_file import digest
from ..runtime.preprocessing import Pixels
from ..runtime.reading import BATCH_SIZE
from ..runtime.run import EncoderSpec
from ..runtime.stream import Chunk, stream_chunks
from .network import InferenceNetwork, embed_pixels
from .weights import serialize_weights


class EagerEncoder:
    """What an Encoder of FP32 would give if the network were exported; see Encoder for what is named alike.

    `id` is the same for the same weights, network and preprocessing: "3f9a1c0d2b4e:fp32".
    """

    engine = PYTORCH

    def __init__(self, network: InferenceNetwork, spec: EncoderSpec, device: str | torch.device = "cpu") -> None:
        self.network = network.to(torch.device(device)).to(memory_format=torch.channels_last)
        self.spec = spec
        self.preprocessing = spec.preprocessing
        self.embedding_size = spec.embedding_size
        hashes = sha256(serialize_weights(network.backbone, network.tail)), sha256(to_json(spec.to_json()).encode())
        self.id = f"{digest(hashes)}:fp32"

    def run(self, pixels: Pixels) -> Vectors:
        """Vectors of unit length, `[N, D]`, of images uint8 `[N, image_size, image_size, 3]`. Raises EngineError."""
        if not len(pixels):
            return np.zeros((0, self.embedding_size), np.float32)
        vectors = embed_pixels(self.network, pixels)
        if problem := find_problem(vectors):
            raise EngineError(f"PyTorch gives {problem}; look at the weights")
        return vectors

    def agrees_with(self, engine: str) -> bool:
        """Whether vectors by `engine` mix with these: no exported model has the same id."""
        return engine == self.engine

    def stream(self, sources: Iterable[Any], batch_size: int = BATCH_SIZE) -> Iterator[Chunk]:
        """Embeds any number of images in bounded memory; images that cannot be read are in `Chunk.errors`."""
        return stream_chunks(self.run, self.preprocessing, sources, batch_size, available_cpus(), "collect")
