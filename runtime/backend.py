"""What an engine is here: a class that loads a model's bytes and runs them. `encoder.py` lists the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .fidelity import Vectors
from .preprocessing import Pixels


@dataclass(frozen=True)
class ModelBytes:
    """A model as an engine loads it.

    `format`: a ModelFormat's name ("onnx", "xml"). `parts`: the bytes of its files, the model first.
    """

    format: str
    parts: tuple[bytes, ...]


class Backend(Protocol):
    """An engine with a model loaded.

    `module`: what has to be installed. `formats`: those that it takes, the one that suits it best first. `fast_on`: the
    machines, as `platform.machine()` calls them, on which "auto" takes it before others.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    fast_on: ClassVar[tuple[str, ...]]

    @staticmethod
    def load(model: ModelBytes, threads: int, device: str = "cpu", low_power: bool = False) -> Backend:
        """`device`: "cpu", or another one as the engine calls it. `low_power`: threads sleep between calls.

        Raises EngineError if the engine is not installed, refuses the model, or lacks the device.
        """
        ...

    def run(self, images: Pixels) -> Vectors:
        """uint8 `[N, H, W, 3]`, N ≥ 1 → float32 `[N, D]`. Safe to call from several threads."""
        ...

    def run_all(self, images: Pixels) -> list[NDArray[np.float32]]:
        """The same, and each feature map `[N, C, H, W]` after it, in the model's order."""
        ...
