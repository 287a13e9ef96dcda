"""A decoder of vectors on disk, with the encoder whose vectors it decodes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from ..models.decoder import Decoder
from ..runtime.errors import ByolEdgeError, VectorError, brief
from ..runtime.identity import Made
from ..runtime.model_file import MOST_DIMENSIONS
from ..runtime.run import DESCRIPTION, read_description
from ..runtime.untrusted import MOST_MODEL, read_bytes
from .results import DECODED, DECODER, FORMAT_VERSION
from .training import MOST_SIDE, VectorDecoder


@dataclass(frozen=True)
class KeptDecoder:
    """A decoder as it is on disk. `model`, `engine`: of the vectors that it was trained on; `agreeing`: the engines
    whose vectors mix with these."""

    decoder: VectorDecoder
    model: str
    engine: str
    agreeing: tuple[str, ...]

    def check(self, name: object, made: Made) -> None:
        """Raises VectorError, naming both, where the vectors called `name` are not such as it decodes."""
        if made.model != self.model:
            raise VectorError(
                f"{name}: its vectors are by {made.model}, this decoder is of {self.model}, and decodes no others: "
                "train one of the encoder that made them"
            )
        if made.engine != self.engine and made.engine not in self.agreeing:
            raise VectorError(
                f"{name}: its vectors are by {made.model} on {made.engine}, this decoder is of {self.engine}, and no "
                "export has found that the two agree: train one of vectors by that engine"
            )


def serialize_decoder(kept: KeptDecoder) -> bytes:
    """A decoder as a safetensors file: the same bytes for the same decoder."""
    decoder = kept.decoder
    tensors = {f"network.{name}": each for name, each in decoder.network.state_dict().items()}
    tensors |= {name: getattr(decoder, name) for name in ("center", "spread", "mean", "deviation")}
    description = {
        "format_version": FORMAT_VERSION,
        "kind": DECODED.name,
        "embedding_size": decoder.embedding_size,
        "side": decoder.side,
        "model": kept.model,
        "engine": kept.engine,
        "agreeing": list(kept.agreeing),
    }
    plain = {name: each.detach().contiguous() for name, each in tensors.items()}
    return safetensors.torch.save(plain, {DESCRIPTION: json.dumps(description, sort_keys=True)})


def load_decoder(folder: Path) -> KeptDecoder:
    """The decoder of a folder that `byol-edge decode` wrote. Raises ByolEdgeError, naming the file."""
    file = folder / DECODER
    if not file.is_file():
        raise ByolEdgeError(f"{folder}: holds no {DECODER}; give a folder that `byol-edge decode` wrote")
    try:
        content = read_bytes(file, MOST_MODEL)
        state = safetensors.torch.load(content)
        told = read_description(content)
        size, side = int(told["embedding_size"]), int(told["side"])
        if told["format_version"] > FORMAT_VERSION:
            raise ValueError("it is of a newer byol-edge")
        if told["kind"] != DECODED.name or not (1 <= size <= MOST_DIMENSIONS and 1 <= side <= MOST_SIDE):
            raise ValueError("it describes no decoder")
        network = Decoder(size, side)
        prefix = "network."
        network.load_state_dict({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})
        shapes = {"center": [size], "spread": [size], "mean": [3, side, side], "deviation": []}
        if any(list(state[name].shape) != shape for name, shape in shapes.items()):
            raise ValueError("tensors of other shapes")
        if not all(torch.isfinite(each).all() for each in state.values()):
            raise ValueError("numbers that are not finite")
        decoder = VectorDecoder(network.eval(), *(state[name].float() for name in shapes))
        return KeptDecoder(decoder, str(told["model"]), str(told["engine"]), tuple(map(str, told["agreeing"])))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ByolEdgeError(f"{file}: damaged, or not a decoder ({brief(error)})") from error
