"""The model files of a bundle: each precision in each format."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from ..models.tracing import trace
from ..runtime.backend import ModelBytes
from ..runtime.errors import BundleError, EngineError, RunError
from ..runtime.feature_maps import list_features
from ..runtime.files import sha256
from ..runtime.model_file import FORMAT_READER, FORMAT_VERSION, read_essentials
from .config import ExportConfig
from .format import ExportFormat
from .formats import FORMATS
from .quantization import Network, Quantization
from .search import Search, quantize_by, search
from .source import FEW, Source

log = logging.getLogger(__name__)

Model = TypeVar("Model")


@dataclass(frozen=True)
class WrittenVariant:
    """A variant whose files are written. `files`: their names, the model first. `search`: of INT8, how it was found."""

    name: str
    precision: str
    format: ExportFormat[Any]
    files: tuple[str, ...]
    model: ModelBytes
    search: Search | None = None


def write_variants(source: Source[Any], folder: Path, config: ExportConfig) -> list[WrittenVariant]:
    """Writes the model files. Raises RunError where the network cannot be traced, or not quantized in any way.

    A format whose tools are not installed is left out; EngineError if there is no other.
    """
    formats = _find_formats(config)
    log.info("tracing the encoder")
    network = Network(source, trace(source.network, source.feature_names))
    if config.int8 and len(source.calibrate) < FEW:
        log.warning(
            f"only {len(source.calibrate)} images to calibrate with, better {FEW} or more: do not trust INT8 far"
        )
    return [variant for each in formats for variant in _write(each, network, folder, config)]


def _find_formats(config: ExportConfig) -> list[ExportFormat[Any]]:
    """Those that are asked for and whose tools are here."""
    found: list[ExportFormat[Any]] = []
    lacking = ""
    for each in (each for each in FORMATS if each.name in config.formats):
        missing = next((module for module in each.requires if find_spec(module) is None), None)
        if missing is None:
            found.append(each)
        else:
            lacking = f"{missing} is not installed (pip install 'byol-edge[export]')"
            log.warning(f"{each.engine}'s variants are left out: {lacking}")
    if not found:
        raise EngineError(f"{{formats}}: {lacking}", formats=",".join(config.formats))
    return found


def _write(kind: ExportFormat[Model], network: Network, folder: Path, config: ExportConfig) -> list[WrittenVariant]:
    """Writes one format's variants, all of them once the last could be made."""
    in_float = kind.convert(network.graph)
    models: dict[str, tuple[Model, Search | None]] = {"fp32": (in_float, None)}
    if config.fp16:
        models["fp16"] = kind.halve(in_float), None
    if config.int8:
        log.info(f"quantizing for {kind.engine}")
        space = Quantization(kind, network, config)
        # By images that are not the user's, one way cannot be told from another.
        models["int8"] = quantize_by(space, space.quick_method()) if network.source.drawn else search(space)
    variants = []
    for precision, (model, found) in models.items():
        files = tuple(f"{precision}{suffix}" for suffix in kind.file.suffixes)
        labeled = kind.label(model, _essentials(network.source, files[0], precision))
        content = kind.serialize(labeled)
        try:
            read_essentials(Path(files[0]), kind.file, content.parts)  # what a device would refuse is not written
        except BundleError as error:
            raise RunError(f"a device would refuse this network ({error}); take what is unusual out of it") from error
        for name, part in zip(files, content.parts, strict=True):
            (folder / name).write_bytes(part)
        variants.append(WrittenVariant(files[0], precision, kind, files, content, found))
    return variants


def _essentials(source: Source[Any], variant: str, precision: str) -> dict[str, Any]:
    """What a model file needs to work alone."""
    return {
        "format_version": FORMAT_VERSION,
        "format_reader": FORMAT_READER,
        "variant": variant,
        "precision": precision,
        "embedding_size": source.spec.embedding_size,
        "preprocessing": source.spec.preprocessing.to_json(),
        "encoder_sha256": sha256(source.weights),
        **list_features(source.features),
    }
