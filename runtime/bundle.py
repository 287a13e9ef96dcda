"""A bundle on disk: what its manifest says, and its files, hashed before they are used."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backend import ModelBytes
from .errors import BundleError, UsageError
from .feature_maps import FeatureMap, read_features
from .fidelity import GATES
from .files import FolderKind, sha256
from .model_file import FORMATS, ModelFile, check_version, digest, find_format, is_safe_name, read_essentials, read_size
from .preprocessing import Preprocessing
from .signature import SIGNATURE, verify
from .untrusted import MOST_JSON, MOST_MODEL, parse_json, read_bytes, to_dataclass

if TYPE_CHECKING:
    from .fusion import FusionSpec
    from .run import EncoderSpec, Provenance

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
WEIGHTS = "encoder.safetensors"

_MODELS = tuple(f"*{suffix}" for each in FORMATS for suffix in each.suffixes)
BUNDLE = FolderKind("bundle", MANIFEST, (MANIFEST, SIGNATURE, "measured.json", GOLDEN, "golden", WEIGHTS, *_MODELS))


@dataclass(frozen=True)
class Agreement:
    """A variant on one engine, as measured at export.

    `engine`: its name. `passes`: whether it was within its gates. `cosine`: the lowest, over the images that it was
    judged on, to what the variant gives on its own engine, the one of its format.
    """

    engine: str
    passes: bool
    cosine: float


@dataclass(frozen=True)
class Variant:
    """A precision in a file format: `int8.onnx`, `fp32.xml`, …

    `files`: its files in the bundle, the model first. `passes`: whether it was within its gates when it was exported.
    `own_cosine`: how far two devices or engines may be apart: the lowest cosine between what they give for an image.
    `engines`: those that ran it at export. `own_agreement`: by feature map, the lowest agreement, on any device, with
    PyTorch's of the golden images.
    """

    name: str
    precision: str
    format: str
    files: tuple[str, ...]
    passes: bool
    own_cosine: float
    engines: tuple[Agreement, ...]
    own_agreement: Mapping[str, float] = field(hash=False)

    def suits(self, engine: str) -> bool:
        """Whether it was within its gates on that engine; of a variant that was on none, whether it ran there."""
        passing = [each for each in self.engines if each.passes]
        return engine in [each.engine for each in passing or self.engines]

    def agree(self, one: str, other: str) -> bool:
        """Whether vectors of two engines mix: by the angles of each to the variant's own, they cannot be further apart
        than `own_cosine`."""
        if one == other:
            return True
        angles = [math.acos(min(1.0, each.cosine)) for each in self.engines if each.engine in (one, other)]
        return len(angles) == 2 and math.cos(min(sum(angles), math.pi)) >= self.own_cosine


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest, and the way to its files."""

    path: Path
    manifest: dict[str, Any]

    @staticmethod
    def open(path: str | Path, public_key: str | Path | None = None) -> Bundle:
        """Reads the manifest; model files are read and hashed when they are asked for. Raises BundleError.

        `public_key`: a PEM file; a bundle that was not signed with its private key is refused.
        """
        folder = Path(path)
        try:
            content = read_bytes(folder / MANIFEST, MOST_JSON)
            if public_key is not None:
                verify(folder, content, Path(public_key))
            manifest = parse_json(content)
        except FileNotFoundError:
            what = "no such folder" if not folder.exists() else f"not a bundle: it holds no {MANIFEST}"
            raise BundleError(f"{folder}: {what}; `byol-edge export RUN --out BUNDLE` makes one") from None
        except NotADirectoryError:
            alone = ", ".join(each.suffixes[0] for each in FORMATS if each.stands_alone)
            raise BundleError(
                f"{folder}: a bundle is a folder; of its files, embed and inspect take an {alone} file, this does not"
            ) from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder / MANIFEST}: unreadable ({_reason(error)}); export the bundle again") from error
        _check_manifest(manifest, folder / MANIFEST)
        return Bundle(folder, manifest)

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_json(self.manifest["preprocessing"])

    @property
    def embedding_size(self) -> int:
        return int(self.manifest["embedding_size"])

    @property
    def features(self) -> tuple[FeatureMap, ...]:
        """The maps that every variant gives beside its embeddings."""
        return read_features(self.manifest)

    @property
    def is_signed(self) -> bool:
        """Whether it holds a signature, of whomever."""
        return (self.path / SIGNATURE).is_file()

    @property
    def module(self) -> str | None:
        """The class of the module that was exported, if it was its maker's own; the bundle does not hold its code."""
        return self.manifest["network"].get("module")

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The architecture of the encoder that was exported. Raises BundleError where only its maker has it, and where
        it is two."""
        from .run import EncoderSpec  # a device that embeds needs neither this nor the next

        network = self.manifest["network"]
        if self.module is not None:
            raise BundleError(
                f"{self.path}: made from a module of its maker's own ({self.module}), whose code it does not hold: "
                "PyTorch's side cannot be rebuilt from it"
            )
        if self.fusion is not None:
            raise BundleError(f"{self.path}: holds two encoders, fused ({self.fusion}), where one is needed")
        return EncoderSpec(network["backbone"], network["stem"], self.embedding_size, self.preprocessing)

    @property
    def fusion(self) -> FusionSpec | None:
        """The architectures of the two encoders that were fused; None if the bundle is of one."""
        return _read_fusion(self.manifest)

    @property
    def provenance(self) -> Provenance:
        """Where the encoder comes from, as far as the manifest says."""
        from .run import Provenance

        try:
            return Provenance.from_json(dict(self.manifest["provenance"]["training"]))
        except (KeyError, TypeError, ValueError):
            return Provenance()

    @property
    def sources(self) -> list[tuple[str, Provenance]]:
        """Of two encoders that were fused, the name that each had at export, and where it comes from, as far as the
        manifest says."""
        from .run import Provenance

        try:
            parts = self.manifest["provenance"]["parts"]
            return [(str(each["name"]), Provenance.from_json(each)) for each in parts]
        except (KeyError, TypeError, ValueError):
            return []

    @property
    def variants(self) -> dict[str, Variant]:
        return {
            name: Variant(
                name=name,
                precision=entry["precision"],
                format=_format_of(name, entry),
                files=tuple(entry["files"]),
                passes=bool(entry["passes"]),
                own_cosine=float(entry["own_cosine"]),
                engines=_read_engines(entry),
                own_agreement=entry.get("own_agreement", {}),
            )
            for name, entry in self.manifest["variants"].items()
        }

    @property
    def default(self) -> Variant:
        """The variant that `variant="auto"` means, on every device."""
        return self.variants[self.manifest["default"]]

    def find(self, variant: str) -> list[Variant]:
        """The variants meant by "auto", a precision or a variant's name. Raises UsageError if there is none."""
        if variant == "auto":
            return [self.default]
        found = [each for each in self.variants.values() if variant in (each.name, each.precision)]
        if not found:
            has = ", ".join(self.variants)
            raise UsageError(f"{{variant}}: {self.path} has no such variant; it has {has}", variant=variant)
        return found

    def best_known(self, precision: str) -> str:
        """The default's name, if it is of this precision and here; else the precision, for any variant of it."""
        return self.default.name if self.default.precision == precision and self.holds(self.default) else precision

    def holds(self, variant: Variant) -> bool:
        """Whether the variant's files are here: a device needs only those that it runs."""
        return all((self.path / name).is_file() for name in variant.files)

    def choose(self, variant: str | None) -> list[Variant]:
        """The variants meant by `variant` (see find), or all that are here. Raises UsageError."""
        return self.find(variant) if variant else [each for each in self.variants.values() if self.holds(each)]

    def size(self, variant: Variant) -> int:
        """Bytes of the variant's files, as the manifest records them."""
        return sum(self.manifest["files"][name]["size"] for name in variant.files)

    def digest(self, variant: Variant) -> str:
        """What the `Encoder.id` of a variant begins with, by the manifest alone."""
        return digest(self._sha256s(variant))

    def _sha256s(self, variant: Variant) -> tuple[str, ...]:
        return tuple(self.manifest["files"][name]["sha256"] for name in variant.files)

    def read(self, name: str) -> bytes:
        """A file's bytes, once they have the hash that the manifest records. Raises BundleError, naming the file."""
        file = self.path / name
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise BundleError(f"{file}: not listed in {MANIFEST}")
        try:
            content = read_bytes(file, int(entry["size"]))
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise BundleError(
                    f"{file}: changed since export (larger than {MANIFEST} says); copy it again"
                ) from error
            raise BundleError(f"{file}: cannot be read ({error.strerror}); copy it from the original bundle") from error
        if sha256(content) != entry["sha256"]:
            raise BundleError(f"{file}: changed since export (its sha256 differs from {MANIFEST}); copy it again")
        return content

    def model(self, variant: Variant) -> ModelFile:
        """The variant's bytes, checked: by their hashes, and by what they say of themselves. Raises BundleError."""
        file = self.path / variant.name
        kind = find_format(file, variant.format)
        if tuple(Path(name).suffix for name in variant.files) != kind.suffixes:
            needs = f"{' and '.join(kind.suffixes)}, {MANIFEST} names {', '.join(variant.files)}"
            raise BundleError(f"{file}: its files have to be {needs}; export the bundle again")
        contents = tuple(self.read(name) for name in variant.files)
        _check_claims(self, variant.name, read_essentials(file, kind, contents))
        return ModelFile(
            name=variant.name,
            precision=variant.precision,
            bytes=ModelBytes(kind.name, contents),
            sha256s=self._sha256s(variant),
            preprocessing=self.preprocessing,
            embedding_size=self.embedding_size,
            features=self.features,
        )


def _read_fusion(manifest: dict[str, Any]) -> FusionSpec | None:
    if "fused" not in manifest["network"]:
        return None
    from .fusion import FusionSpec

    spec = FusionSpec.from_json(manifest["network"]["fused"], read_size(manifest))
    if spec.preprocessing != Preprocessing.from_json(manifest["preprocessing"]):
        raise ValueError("the first encoder's preprocessing is another")
    return spec


def _format_of(name: str, entry: dict[str, Any]) -> str:
    """A variant's file format by its entry in the manifest, or by its suffix where the entry has none."""
    return entry.get("format", Path(name).suffix[1:])


def _read_engines(entry: dict[str, Any]) -> tuple[Agreement, ...]:
    return tuple(to_dataclass(Agreement, {**each, "engine": name}) for name, each in entry["engines"].items())


def _check_claims(bundle: Bundle, variant: str, metadata: dict[str, Any]) -> None:
    """Raises BundleError where a model file contradicts what the manifest says about `variant`."""
    manifest, metadata = bundle.manifest, {"features": [], **metadata}
    claims = {
        "variant": variant,
        "precision": manifest["variants"][variant]["precision"],
        "embedding_size": manifest["embedding_size"],
        "preprocessing": manifest["preprocessing"],
        "features": manifest.get("features", []),
        "encoder_sha256": manifest["files"].get(WEIGHTS, {}).get("sha256"),
    }
    for name, claimed in claims.items():
        told = metadata.get(name, claimed)
        if claimed is not None and told != claimed:
            what = (
                f"was made from other weights than {WEIGHTS}"
                if name == "encoder_sha256"
                else f"says of itself {name} {told}, where {MANIFEST} says {claimed}"
            )
            raise BundleError(f"{bundle.path}: the file of {variant} {what}; export the bundle again")


def _check_manifest(manifest: Any, file: Path) -> None:
    """Refuses a manifest of a newer format, or one that lacks what is read later, or that points out of its folder."""
    try:
        check_version(file, manifest)
        Preprocessing.from_json(manifest["preprocessing"])
        read_size(manifest)
        maps = [each.name for each in read_features(manifest)]
        network = manifest["network"]
        if _read_fusion(manifest) is None:
            _ = [network[name].strip() for name in (("module",) if "module" in network else ("backbone", "stem"))]
        for entry in manifest["files"].values():
            _ = entry["sha256"].strip()
            if not 0 <= int(entry["size"]) <= MOST_MODEL:
                raise KeyError("size")
        names = set()
        for entry in manifest["variants"].values():
            names.update(entry["files"])
            if not 0 < float(entry["own_cosine"]) <= 1:
                raise KeyError("own_cosine")
            if not all(-1 <= each.cosine <= 1 + 1e-6 for each in _read_engines(entry)):
                raise KeyError("engines")
            agreement = entry.get("own_agreement", {})
            if sorted(agreement) != sorted(maps) or not all(-1 <= each <= 1 for each in agreement.values()):
                raise KeyError("own_agreement")
            _ = _format_of("", entry).strip()
            if entry["precision"] not in GATES or not entry["files"] or not isinstance(entry["passes"], bool):
                raise KeyError("variants")
        if manifest["default"] not in manifest["variants"] or not names <= manifest["files"].keys():
            raise KeyError("default or files")
        unsafe = [name for name in (*manifest["files"], *manifest["variants"], *names) if not is_safe_name(name)]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise BundleError(f"{file}: not a manifest of this project ({error}); export the bundle again") from error
    if unsafe:
        name = unsafe[0] if len(unsafe[0]) <= 80 else f"{unsafe[0][:79]}…"
        raise BundleError(
            f"{file}: {name!r} points out of the bundle, or cannot be the name of a file; do not trust this bundle"
        )


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
