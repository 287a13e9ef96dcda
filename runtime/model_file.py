"""A model as it is loaded: bytes that are hashed, whole, and say themselves how to feed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import ModelBytes
from .errors import BundleError
from .feature_maps import FeatureMap, read_features
from .fidelity import GATES
from .files import sha256
from .model_format import ModelFormat
from .onnx_file import ONNX
from .openvino_file import OPENVINO_IR
from .preprocessing import Preprocessing
from .text import count
from .untrusted import MOST_MODEL, parse_json, read_bytes

FORMATS: tuple[ModelFormat, ...] = (ONNX, OPENVINO_IR)

FORMAT_VERSION = 1
# The release that reads that format version; an older one names it when it refuses the bundle.
FORMAT_READER = "byol-edge>=0.1.0"
# The key, in a model file's metadata, of what the manifest says about it.
METADATA_KEY = "byol_edge"
# The longest embedding.
MOST_DIMENSIONS = 2**16


@dataclass(frozen=True)
class ModelFile:
    """A variant's bytes, and what it takes to feed them.

    `name`: the variant's. `sha256s`: of its files, the model first. `features`: the maps that it gives, too.
    """

    name: str
    precision: str
    bytes: ModelBytes
    sha256s: tuple[str, ...]
    preprocessing: Preprocessing
    embedding_size: int
    features: tuple[FeatureMap, ...] = ()

    @property
    def id(self) -> str:
        """Names the model: "3f9a1c0d2b4e:int8.onnx"."""
        return f"{digest(self.sha256s)}:{self.name}"


def digest(sha256s: tuple[str, ...]) -> str:
    """12 hexadecimal digits that tell a model with files of these hashes from every other."""
    return sha256("".join(sha256s).encode())[:12]


def precision_of(model_id: str) -> str | None:
    """The precision of the model that an id names (see ModelFile.id), None where the text is no such id."""
    _, _, variant = model_id.partition(":")
    precision = variant.split(".")[0]  # PyTorch's has no file: "3f9a1c0d2b4e:fp32"
    return precision if precision in GATES else None


def find_format(file: Path, name: str) -> ModelFormat:
    """The format of that name. Raises BundleError, naming the file, if this version does not know it."""
    found = [each for each in FORMATS if each.name == name]
    if not found:
        raise BundleError(f"{file}: this byol-edge does not read the format {name!r}; install a newer one")
    return found[0]


def is_model_file(path: Path) -> bool:
    """Whether this names a model file that stands alone, not a bundle. Raises BundleError where that cannot be seen."""
    try:
        return _format_alone(path) is not None and not path.is_dir()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def read_alone(path: Path) -> ModelFile:
    """A model file without its bundle: its metadata holds the manifest's essentials. Raises BundleError."""
    kind = _format_alone(path)
    if kind is None:
        raise BundleError(f"{path}: not a model file that can be used without its bundle")
    try:
        content = read_bytes(path, MOST_MODEL)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    essentials = read_essentials(path, kind, (content,))
    try:
        check_version(path, essentials)
        preprocessing = Preprocessing.from_json(essentials["preprocessing"])
        name, precision, size = essentials["variant"], essentials["precision"], read_size(essentials)
        features = read_features(essentials)
        if precision not in GATES:
            raise ValueError(f"precision {precision!r}")
        if not isinstance(name, str) or not is_safe_name(name):
            raise ValueError(f"variant {str(name)[:40]!r}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{path}: its metadata is not byol-edge's ({error}); export it again") from error
    model = ModelBytes(kind.name, (content,))
    return ModelFile(name, precision, model, (sha256(content),), preprocessing, size, features)


def read_essentials(file: Path, kind: ModelFormat, parts: Sequence[bytes]) -> dict[str, Any]:
    """What export wrote into a model file about how to feed it.

    Raises BundleError where it says nothing, is damaged, or is not safe to load.
    """
    try:
        maps = kind.check(parts)
    except ValueError as error:
        raise BundleError(f"{file}: {error}") from error
    try:
        essentials = parse_json(kind.read_metadata(parts[0], METADATA_KEY) or "null")
    except ValueError:
        essentials = None
    if not isinstance(essentials, dict):
        raise BundleError(f"{file}: not exported by byol-edge: its metadata does not say how to feed it")
    listed = essentials.get("features", [])
    if not isinstance(listed, list) or len(listed) != maps:
        raise BundleError(f"{file}: gives {count(maps, 'feature map')}, other than its metadata says; export it again")
    return essentials


def read_size(content: dict[str, Any]) -> int:
    """The length of an embedding. Raises KeyError, TypeError or ValueError where it is missing, or out of range."""
    size = int(content["embedding_size"])
    if not 1 <= size <= MOST_DIMENSIONS:
        raise ValueError(f"embedding_size {size}")
    return size


def is_safe_name(name: str) -> bool:
    """Whether a file's name stays in its folder, can be the name of a file, and can be printed."""
    parts = name.split("/")
    fits = all(part not in ("", ".", "..") and len(part.encode(errors="replace")) <= 255 for part in parts)
    return fits and len(parts) <= 8 and "\\" not in name and name.isprintable()


def check_version(file: Path, content: dict[str, Any]) -> None:
    """Raises BundleError, with the version to install, where a manifest or a model's metadata is of a newer format."""
    version = int(content["format_version"])
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{file}: bundle format {version} is newer than this byol-edge reads ({FORMAT_VERSION}); "
            f"pip install '{content.get('format_reader', 'byol-edge')}'"
        )


def _format_alone(path: Path) -> ModelFormat | None:
    """The format of a file of this name, if its files stand alone."""
    return next((each for each in FORMATS if each.stands_alone and path.suffix == each.suffixes[0]), None)
