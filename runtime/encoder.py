"""The Encoder: images in, embeddings out, on any engine that is installed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, overload
from weakref import WeakSet

import numpy as np

from .backend import Backend
from .bundle import Bundle
from .choosing import choose, choose_engines
from .cpus import available_cpus
from .errors import BundleError, EngineError, ImageError, UsageError, brief
from .feature_maps import Maps
from .fidelity import UNIT_LENGTH, Vectors
from .model_file import ModelFile, is_model_file, read_alone
from .preprocessing import Pixels, Source, prepare
from .reading import BATCH_SIZE, read_batches
from .self_test import SelfTest, run_self_test
from .stream import Chunk, stream_chunks

log = logging.getLogger(__name__)

MOST_THREADS = 512

_OPEN: WeakSet[Encoder] = WeakSet()
_KEPT: list[Backend | None] = []


def _keep_engines() -> None:
    """In a forked child, an engine that ended would wait for threads that stayed in the parent, so it never ends."""
    _KEPT.extend(encoder._backend for encoder in _OPEN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_engines)


class Encoder:
    """Turns images into embeddings of unit length.

    `path`: a bundle, or an .onnx file of one. `variant`: "auto" (the bundle's default, the same on every device),
    "fp32", "int8", or a variant's name ("int8.onnx"). `backend`: "onnxruntime", "openvino" or "auto", the fastest that
    is installed here and that was within the variant's gates at export. `threads`: CPU threads of the engine; by
    default all that this process may use. `device`: "cpu", or another one that the engine finds here ("cuda", "gpu",
    "npu"). `low_power`: threads sleep between calls, which costs some latency and saves most of the power of an idle
    device. `public_key`: a PEM file; only bundles that were signed with its private key are opened (docs/security.md).
    Safe to share between threads, but not across a fork.

    Raises BundleError (missing, changed), UsageError (no such variant) and EngineError (engine not installed).

        encoder = Encoder("bundles/shop")
        encoder.embed("mug.jpg")            # float32 [D]
        encoder.embed(["a.jpg", "b.jpg"])   # float32 [2, D]

    `close`, or the end of a `with` block, gives the engine's memory back.
    """

    def __init__(
        self,
        path: str | Path,
        variant: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        device: str = "cpu",
        low_power: bool = False,
        public_key: str | Path | None = None,
    ) -> None:
        threads = available_cpus() if threads is None else threads
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"{{threads}}: has to be from 1 to {MOST_THREADS}", threads=threads)
        if is_model_file(Path(path)):
            if public_key is not None:
                raise UsageError(
                    f"{{public_key}}: a signature is a bundle's; {path} alone has none", public_key=public_key
                )
            self.bundle = None
            model = read_alone(Path(path))
            candidates = ((model, engine) for engine in choose_engines(model, backend))
            if variant not in ("auto", model.name, model.precision):
                raise UsageError(f"{{variant}}: {path} is {model.name}", variant=variant)
        else:
            self.bundle = Bundle.open(path, public_key)
            bundle = self.bundle
            pairs = choose(bundle, variant, backend)
            candidates = ((bundle.model(chosen), engine) for chosen, engine in pairs)
        device = device.lower()
        model, loaded = _load_first(path, candidates, threads, device, low_power)
        self._backend: Backend | None = loaded
        self.variant = model.name
        """The variant's name: "int8.onnx"."""
        self.engine = loaded.name if device == "cpu" else f"{loaded.name}:{device}"
        """ "onnxruntime", or "openvino:gpu" where it does not run on the CPU."""
        self.embedding_size = model.embedding_size
        """D, the length of an embedding."""
        self.features = model.features
        """The feature maps that `maps` gives, as exported (docs/export.md); often none."""
        self.preprocessing = model.preprocessing
        """What `embed` does to an image before the network sees it."""
        self.id = model.id
        """Names the model: "3f9a1c0d2b4e:int8.onnx". Vectors of different ids do not mix."""
        self._process = os.getpid()
        _OPEN.add(self)

    @overload
    def embed(self, images: Source) -> Vectors: ...
    @overload
    def embed(self, images: list[Any] | tuple[Any, ...]) -> Vectors: ...
    def embed(self, images: Any) -> Vectors:
        """Embeddings, float32, each of unit length: `[D]` for one image, `[N, D]` for a list of N.

        An image is a path, encoded bytes, a file opened for reading bytes, a PIL image or a uint8 array
        `[H, W(, 1|3|4)]`. A large JPEG given as a path, bytes or a file may be decoded at reduced scale, which moves
        its vector a little (docs/runtime.md). Raises ImageError at the first unreadable one; `stream` goes on instead.
        """
        if not isinstance(images, (list, tuple)):
            return self._embed(prepare(images, self.preprocessing)[None])[0]
        vectors = [chunk.vectors for chunk in self.stream(images, errors="raise")]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.embedding_size), np.float32)

    def run(self, pixels: Pixels) -> Vectors:
        """What the model gives, `[N, D]`, for images that are already prepared: uint8 `[N, image_size, image_size, 3]`.

        Unlike `embed` and `stream`, it hands on vectors that are not finite or not of unit length.
        """
        backend = self._check(pixels)
        if not len(pixels):
            return np.zeros((0, self.embedding_size), np.float32)
        try:
            vectors = backend.run(np.ascontiguousarray(pixels))
        except Exception as error:  # each engine raises types of its own
            raise EngineError(f"{self.variant} failed on {self.engine}: {brief(error)}") from error
        if vectors.shape != (len(pixels), self.embedding_size):
            raise BundleError(
                f"{self.variant} gives vectors {list(vectors.shape)}; the manifest says {self.embedding_size} "
                "(a layer too many, such as the projector, or another network's file)"
            )
        return vectors

    def maps(self, images: Any) -> Maps:
        """Feature maps by name, float32: each `[C, H, W]` for one image, `[N, C, H, W]` for a list of N.

        They are computed a batch at a time, but all of a list's are returned: give long lists in parts. Images are
        as for `embed`. Raises UsageError if the bundle was exported without feature maps, and ImageError at the first
        image that cannot be read.
        """
        if not isinstance(images, (list, tuple)):
            return {name: each[0] for name, each in self._map(prepare(images, self.preprocessing)[None]).items()}
        parts = [self.run_maps(np.zeros((0, *[self.preprocessing.image_size] * 2, 3), np.uint8))]
        for batch in read_batches(images, self.preprocessing):
            if batch.unreadable:
                raise batch.unreadable[0].error
            parts.append(self._map(batch.pixels))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def run_maps(self, pixels: Pixels) -> Maps:
        """What `run` is to `embed`: feature maps of prepared images, also such that are not finite."""
        if not self.features:
            raise UsageError(f"{self.variant} gives no feature maps: export it again, with {{features}}", features="…")
        backend = self._check(pixels)
        if not len(pixels):
            return {each.name: np.zeros((0, *each.shape), np.float32) for each in self.features}
        try:
            _, *found = backend.run_all(np.ascontiguousarray(pixels))
        except Exception as error:  # each engine raises types of its own
            raise EngineError(f"{self.variant} failed on {self.engine}: {brief(error)}") from error
        if [each.shape for each in found] != [(len(pixels), *each.shape) for each in self.features]:
            given, said = [list(each.shape[1:]) for each in found], ", ".join(map(str, self.features))
            raise BundleError(f"{self.variant} gives feature maps {given}; the manifest says {said}")
        return {each.name: maps for each, maps in zip(self.features, found, strict=True)}

    def _map(self, pixels: Pixels) -> Maps:
        maps = self.run_maps(pixels)
        for name, each in maps.items():
            if not np.isfinite(each).all():
                raise EngineError(
                    f"{self.variant} on {self.engine} gives a map {name} with numbers that are not finite; "
                    "run its self-test"
                )
        return maps

    def _check(self, pixels: Pixels) -> Backend:
        """The engine, once it is known to take these."""
        side = self.preprocessing.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise ImageError(
                f"pixels of {pixels.dtype} {list(pixels.shape)}: this model takes uint8 [N, {side}, {side}, 3]"
            )
        if self._backend is None:
            raise UsageError("this Encoder is closed")
        if os.getpid() != self._process:
            raise EngineError(
                "this Encoder was made before a fork, and its engine's threads stayed behind: make one in each process"
            )
        return self._backend

    def stream(
        self,
        sources: Iterable[Any],
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        errors: str = "collect",
    ) -> Iterator[Chunk]:
        """Embeds any number of images in bounded memory, in input order, as chunks of up to `batch_size`.

        The next batch is decoded, by `workers` threads, while this one is embedded. `errors`: what happens to images
        that cannot be read. "collect" puts them into `Chunk.errors`, "skip" leaves them out, "raise" stops at the
        first. Raises UsageError, ImageError.

            for chunk in encoder.stream(find_images("photos")):
                index.add(chunk.sources, chunk.vectors)
        """
        workers = available_cpus() if workers is None else workers
        return stream_chunks(self._embed, self.preprocessing, sources, batch_size, workers, errors)

    def _embed(self, pixels: Pixels) -> Vectors:
        vectors = self.run(pixels)
        if problem := find_problem(vectors):
            raise EngineError(f"{self.variant} on {self.engine} gives {problem}; run its self-test")
        return vectors

    def agrees_with(self, engine: str) -> bool:
        """Whether this model's vectors by `engine` mix with those made here, as the export measured it."""
        known = engine == self.engine
        return known or (self.bundle is not None and self.bundle.variants[self.variant].agree(engine, self.engine))

    def close(self) -> None:
        """Gives the engine's memory back; embedding is over then."""
        self._backend = None

    def __repr__(self) -> str:
        return f"Encoder({self.id} on {self.engine})"

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def self_test(self) -> SelfTest:
        """Embeds the bundle's reference images, and compares with PyTorch and with the export."""
        if self.bundle is None:
            raise UsageError("a self-test needs the whole bundle: its reference images lie beside the model")
        return run_self_test(self.bundle, self.bundle.variants[self.variant], self.engine, self.run, self.run_maps)


def _load_first(
    path: str | Path, candidates: Iterable[tuple[ModelFile, type[Backend]]], threads: int, device: str, low_power: bool
) -> tuple[ModelFile, Backend]:
    """The first model that its engine takes. Raises EngineError, with each engine's reason, where none does."""
    failed: list[EngineError] = []
    for model, engine in candidates:
        try:
            return model, engine.load(model.bytes, threads, device, low_power)
        except EngineError as error:
            log.debug("%s: %s does not run on %s: %s", path, model.name, engine.name, error)
            failed.append(EngineError(f"{path}: {model.name}: {error.message}", **error.arguments))
            failed[-1].__cause__ = error
    if len(failed) == 1:
        raise failed[0]
    arguments = {name: value for each in failed for name, value in each.arguments.items()}
    raise EngineError("; ".join(each.message for each in failed), **arguments) from failed[0].__cause__


def find_problem(vectors: Vectors) -> str:
    """What is wrong with a model's vectors `[N, D]`; empty if nothing is."""
    if vectors.dtype != np.float32:
        return f"vectors of {vectors.dtype}, not float32"
    if not np.isfinite(vectors).all():
        return "vectors with numbers that are not finite"
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = lengths[np.abs(lengths - 1) > UNIT_LENGTH.limit]
    return f"vectors of length {wrong[0]:.4g}, not 1" if len(wrong) else ""
