"""A model as it is loaded: bytes that are hashed, whole, and say of themselves how to feed them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import ModelBytes
from .errors import BundleError
from .files import sha256
from .onnx_file import has_external_data, read_properties
from .preprocessing import Preprocessing

FORMAT_VERSION = 1
# What reads that format; an older byol-edge names it when it refuses the bundle.
FORMAT_READER = "byol-edge>=0.1.0"
# The key, in a model file's metadata, of what the manifest says about it.
METADATA_KEY = "byol_edge"


@dataclass(frozen=True)
class ModelFile:
    """A variant's bytes, and what it takes to feed them.

    `name`: the variant's. `sha256s`: its files', the model first.
    """

    name: str
    bytes: ModelBytes
    sha256s: tuple[str, ...]
    preprocessing: Preprocessing
    embedding_size: int

    def digest(self) -> str:
        """12 hexadecimal digits that tell this model from every other; part of `Encoder.id`."""
        return digest(self.sha256s)


def digest(sha256s: tuple[str, ...]) -> str:
    return sha256("".join(sha256s).encode())[:12]


def is_model_file(path: Path) -> bool:
    """Whether this names an .onnx file rather than a bundle. Raises BundleError where that cannot be seen."""
    try:
        return path.suffix == ".onnx" and not path.is_dir()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def read_alone(path: Path) -> ModelFile:
    """An .onnx file without its bundle: its metadata holds the manifest's essentials. Raises BundleError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    check_whole(path, content)
    essentials = read_metadata(path, content)
    try:
        check_format(path, essentials)
        preprocessing = Preprocessing.from_json(essentials["preprocessing"])
        name, size = essentials["variant"], int(essentials["embedding_size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{path}: its metadata is not byol-edge's ({error}); export it again") from error
    return ModelFile(name, ModelBytes("onnx", (content,)), (sha256(content),), preprocessing, size)


def read_metadata(file: Path, content: bytes) -> dict[str, Any]:
    """What export wrote into a model, .onnx or .xml, of how to feed it. Raises BundleError where there is nothing."""
    try:
        if file.suffix == ".xml":
            import html  # half as slow to load as all that a start takes from this package

            found = re.search(rf'<{METADATA_KEY} value="([^"]*)"'.encode(), content)
            text = html.unescape(found[1].decode()) if found else None
        else:
            text = read_properties(content).get(METADATA_KEY)
        essentials = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        essentials = None
    if not isinstance(essentials, dict):
        raise BundleError(f"{file}: not exported by byol-edge: its metadata does not say how to feed it")
    return essentials


def check_whole(file: Path, content: bytes) -> None:
    """Raises BundleError if an .onnx file is none, or takes weights from other files, which nothing has hashed."""
    try:
        external = has_external_data(content)
    except ValueError as error:
        raise BundleError(f"{file}: not an .onnx file ({error})") from error
    if external:
        raise BundleError(f"{file}: takes weights from another file (external data); do not trust this model")


def check_format(file: Path, content: dict[str, Any]) -> None:
    """Raises BundleError, with the version to install, where a manifest or a model's metadata is of a newer format."""
    version = int(content["format_version"])
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{file}: bundle format {version} is newer than this byol-edge reads ({FORMAT_VERSION}); "
            f"pip install '{content.get('format_reader', 'byol-edge')}'"
        )
