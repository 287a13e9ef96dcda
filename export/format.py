"""What export knows of a model file format: how a network becomes its files, and how it is quantized.

Each format is one class, in a file of its own; `formats.py` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from ..models.tracing import Graph
from ..runtime.backend import Backend, ModelBytes
from ..runtime.model_format import ModelFormat
from ..runtime.preprocessing import Pixels
from .search import Method

Model = TypeVar("Model")


class ExportFormat(Protocol[Model]):
    """A file format to export to; `Model` is what its own tools take for a model.

    `name`: as ExportConfig asks for it. `file`: what the runtime knows of it. `backend`: the engine that its variants
    are judged and timed on, called `engine` in what is printed. `requires`: modules that may be missing.
    """

    name: ClassVar[str]
    engine: ClassVar[str]
    file: ClassVar[ModelFormat]
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

    def quick_method(self, graph: Graph, calibrate: Pixels, target: str) -> Method[Model]:
        """The one way to quantize where there are no images to search with: `calibrate` are of another kind."""
        ...

    def label(self, model: Model, essentials: dict[str, Any]) -> Model:
        """The same model with the manifest's essentials in its metadata, so that its file also works alone."""
        ...

    def serialize(self, model: Model) -> ModelBytes:
        """The contents of its files: the same bytes for the same model."""
        ...
