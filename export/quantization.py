"""What a quantization search works on: a network in one format, judged by its engine against PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

from ..evaluate.layers import IMAGES, Layer, compare_layers
from ..models.tracing import Graph, count_multiply_adds, trace
from ..runtime.cpus import available_cpus
from ..runtime.fidelity import Fidelity, compare
from . import tuning
from .config import ExportConfig
from .format import ExportFormat
from .search import Method
from .source import Source

log = logging.getLogger(__name__)

Model = TypeVar("Model")


@dataclass(frozen=True)
class Network:
    """An encoder as all formats are made from it: traced, and fine-tuned for INT8 once that is asked for."""

    source: Source[Any]
    graph: Graph

    @cached_property
    def shares(self) -> dict[str, float]:
        """Of each layer with weights, the share of the multiply-adds."""
        counts = count_multiply_adds(self.graph.model)
        return {layer: count / sum(counts.values()) for layer, count in counts.items()}

    @cached_property
    def fine_tuned(self) -> Graph:
        log.info("fine-tuning the network for INT8: up to 15 minutes (finetune=False leaves it out)")
        tuned = tuning.fine_tune(self.source.network, self.source.calibrate)
        return trace(tuned, self.source.feature_names)


@dataclass(frozen=True)
class Quantization(Generic[Model]):
    """The SearchSpace of a network in one format."""

    format: ExportFormat[Model]
    network: Network
    config: ExportConfig

    @property
    def shares(self) -> dict[str, float]:
        return self.network.shares

    def methods(self) -> Sequence[Sequence[Method[Model]]]:
        return self._list_methods(self.network.graph)

    def quick_method(self) -> Method[Model]:
        return self.format.quick_method(self.network.graph, self.network.source.calibrate, self.config.chosen_target)

    def fine_tuned(self, method: Method[Model]) -> Method[Model] | None:
        if not self.config.finetune:
            return None
        return Method(f"{method.name}, fine-tuned", partial(self._quantize_tuned, method.name))

    def judge(self, model: Model) -> Fidelity:
        source = self.network.source
        engine = self.format.backend.load(self.format.serialize(model), available_cpus())
        return compare(source.reference, engine.run(source.judge))

    def measure(self, model: Model) -> list[Layer]:
        images = self.network.source.calibrate[:IMAGES]
        return compare_layers(self.network.graph.model, self.format.serialize(model), images)

    def _list_methods(self, graph: Graph) -> Sequence[Sequence[Method[Model]]]:
        return self.format.methods(graph, self.network.source.calibrate, self.config.chosen_target)

    @cached_property
    def _on_fine_tuned(self) -> dict[str, Method[Model]]:
        return {each.name: each for group in self._list_methods(self.network.fine_tuned) for each in group}

    def _quantize_tuned(self, name: str, in_float: Collection[str]) -> Model:
        """Fine-tunes when the first trial needs it, so that its time, and its failure, are that trial's."""
        return self._on_fine_tuned[name].quantize(in_float)
