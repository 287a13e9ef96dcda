"""What a model file format is to export: how a network becomes its files, and how it is quantized.

Each format is one class, in a file of its own; `formats.py` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from ..models.tracing import Graph
from ..runtime.backend import Backend, ModelBytes
from ..runtime.preprocessing import Pixels
from .search import Method

Model = TypeVar("Model")


class ModelFormat(Protocol[Model]):
    """A file format; `Model` is what its own tools call a model.

    `name`: as ExportConfig asks for it. `suffixes`: of its files' names, the model's first. `backend`: the engine that
    it is judged and timed on, called `engine` in what is printed. `requires`: modules that may be missing.
    """

    name: ClassVar[str]
    engine: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    backend: ClassVar[type[Backend]]
    requires: ClassVar[tuple[str, ...]]

    def convert(self, graph: Graph) -> Model:
        """The network in FP32."""
        ...

    def halve(self, model: Model) -> Model:
        """The same network, its weights in float16."""
        ...

    def methods(self, graph: Graph, calibrate: Pixels, target: str) -> Sequence[Sequence[Method[Model]]]:
        """Ways to quantize, in groups, the cheapest first (see SearchSpace).

        `calibrate`: images uint8 `[N, H, W, 3]` for the activations' ranges. `target`: one of config.TARGETS.
        """
        ...

    def label(self, model: Model, essentials: dict[str, Any]) -> Model:
        """The same model with the manifest's essentials in its metadata, so that its file also works alone."""
        ...

    def serialize(self, model: Model) -> ModelBytes:
        """The contents of its files, one for each suffix: equal models are equal bytes."""
        ...
