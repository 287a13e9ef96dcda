"""The Encoder: images in, embeddings out, on any engine that is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from .bundle import FORMAT_VERSION, Bundle, ModelFile, Variant, check_claims
from .cpus import available_cpus
from .errors import BundleError, EngineError, ImageError, UsageError
from .fidelity import Vectors
from .onnxruntime_backend import OnnxRuntimeBackend
from .openvino_backend import OpenVinoBackend
from .preprocessing import Pixels, Preprocessing, Source, prepare, prepare_all
from .self_test import SelfTest, run_self_test

Backend = type[OnnxRuntimeBackend | OpenVinoBackend]

BACKENDS: tuple[Backend, ...] = (OnnxRuntimeBackend, OpenVinoBackend)
BATCH_SIZE = 32
MOST_THREADS = 512


@dataclass(frozen=True)
class Chunk:
    """A batch of a stream: `vectors[i]` is the embedding of `sources[i]`; what could not be read is in `errors`."""

    sources: list[Any]
    vectors: Vectors
    errors: list[tuple[Any, ImageError]]


class Encoder:
    """Turns images into embeddings of unit length.

    `path`: a bundle, or an .onnx file of one. `variant`: "auto" (the bundle's default, the same on every device),
    "fp32", "int8", or a variant's name ("int8.onnx"). `backend`: "onnxruntime", "openvino" or "auto".
    `threads`: CPU threads of the engine; by default all that this process may use. Safe to share between threads.

    Raises BundleError (missing, changed), UsageError (no such variant) and EngineError (engine not installed).

        encoder = Encoder("bundles/shop")
        encoder.embed("mug.jpg")            # float32 [D]
        encoder.embed(["a.jpg", "b.jpg"])   # float32 [2, D]
    """

    def __init__(
        self, path: str | Path, variant: str = "auto", backend: str = "auto", threads: int | None = None
    ) -> None:
        threads = available_cpus() if threads is None else threads
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"threads={threads}: from 1 to {MOST_THREADS}")
        if Path(path).suffix == ".onnx" and not Path(path).is_dir():
            self.bundle = None
            model = _read_model_file(Path(path))
            engine = _find_engines(backend)[0]
            if variant not in ("auto", model.name, model.name.split(".")[0]):
                raise UsageError(f"{path} is {model.name}, not {variant}")
        else:
            self.bundle = Bundle.open(path)
            chosen, engine = choose(self.bundle, variant, backend)
            model = self.bundle.model(chosen)
        try:
            self._backend = engine.load(model.contents, threads)
        except EngineError as error:
            raise EngineError(f"{path}: {model.name}: {error}") from error
        if self.bundle is not None:
            check_claims(self.bundle, model.name, self._backend.metadata())
        self.variant = model.name
        """The variant's name: "int8.onnx"."""
        self.engine = engine.name
        """ "onnxruntime" or "openvino"."""
        self.embedding_size = model.embedding_size
        """D, the length of an embedding."""
        self.preprocessing = model.preprocessing
        """What `embed` does to an image before the network sees it."""
        self.id = f"{model.digest()}:{self.variant}:{self.engine}"
        """What made these vectors: "3f9a1c0d2b4e:int8.onnx:onnxruntime". Vectors of different ids do not mix."""

    @overload
    def embed(self, images: Source) -> Vectors: ...
    @overload
    def embed(self, images: list[Any] | tuple[Any, ...]) -> Vectors: ...
    def embed(self, images: Any) -> Vectors:
        """Embeddings, float32, each of unit length: `[D]` for one image, `[N, D]` for a list of N.

        An image is a path, encoded bytes, a PIL image or a uint8 array `[H, W(, 1|3|4)]`. Raises ImageError at the
        first unreadable one; `stream` goes on instead.
        """
        if not isinstance(images, (list, tuple)):
            return self.run(prepare(images, self.preprocessing)[None])[0]
        vectors = [self.run(prepare_all(batch, self.preprocessing)) for batch in batches(images, BATCH_SIZE)]
        return np.concatenate(vectors) if vectors else self.run(self._no_pixels())

    def run(self, pixels: Pixels) -> Vectors:
        """Embeddings `[N, D]` of images that are prepared already: uint8 `[N, image_size, image_size, 3]`."""
        side = self.preprocessing.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise ImageError(
                f"pixels of {pixels.dtype} {list(pixels.shape)}: this model takes uint8 [N, {side}, {side}, 3]"
            )
        if not len(pixels):
            return np.zeros((0, self.embedding_size), np.float32)
        try:
            vectors = self._backend.run(np.ascontiguousarray(pixels))
        except Exception as error:  # each engine raises types of its own
            raise EngineError(f"{self.variant} failed on {self.engine}: {error}") from error
        if vectors.shape != (len(pixels), self.embedding_size):
            raise BundleError(
                f"{self.variant} gives vectors {list(vectors.shape)}; the manifest says {self.embedding_size} "
                "(a layer too many, such as the projector, or another network's file)"
            )
        return vectors

    def stream(self, sources: Iterable[Any], batch_size: int = BATCH_SIZE) -> Iterator[Chunk]:
        """Embeds any number of images in bounded memory, in input order; unreadable ones become `Chunk.errors`.

        The next batch is decoded while this one is embedded.
        """
        if isinstance(sources, (str, bytes)) or batch_size < 1:
            raise UsageError("stream takes many sources (find_images lists a folder's) and a batch_size of 1 or more")
        with ThreadPoolExecutor(available_cpus()) as pool:

            def submit(batch: tuple[Any, ...]) -> list[tuple[Any, Future[Pixels]]]:
                return [(source, pool.submit(prepare, source, self.preprocessing)) for source in batch]

            waiting: list[tuple[Any, Future[Pixels]]] = []
            for batch in chain(batches(sources, batch_size), [()]):  # the empty one sends the last batch out
                ready, waiting = waiting, submit(batch)
                if ready:
                    yield self._finish(ready)

    def _finish(self, decoded: list[tuple[Any, Future[Pixels]]]) -> Chunk:
        sources, pixels, errors = [], [], []
        for source, future in decoded:
            try:
                pixels.append(future.result())
                sources.append(source)
            except ImageError as error:
                errors.append((source, error))
        return Chunk(sources, self.run(np.stack(pixels) if pixels else self._no_pixels()), errors)

    def _no_pixels(self) -> Pixels:
        return np.zeros((0, self.preprocessing.image_size, self.preprocessing.image_size, 3), np.uint8)

    def self_test(self) -> SelfTest:
        """Embeds the bundle's reference images and says how far this device is from PyTorch and from the export."""
        if self.bundle is None:
            raise UsageError("a self-test needs the whole bundle: its reference images lie beside the model")
        return run_self_test(self.bundle, self.bundle.variants[self.variant], self.run)


def batches(sources: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Successive tuples of `size` items, the last one shorter."""
    iterator = iter(sources)
    while batch := tuple(islice(iterator, size)):
        yield batch


def choose(bundle: Bundle, variant: str, backend: str) -> tuple[Variant, Backend]:
    """The variant and the engine that `variant` and `backend` mean for a bundle, by what lies in it.

    Each engine takes its own format before another's, ONNX Runtime coming first where both would do.
    """
    engines = _find_engines(backend)
    wanted = bundle.find(variant)
    pairs = [
        (each, engine)
        for engine in engines
        for suffix in engine.formats
        for each in wanted
        if each.format == suffix and bundle.holds(each)
    ]
    if pairs:
        return pairs[0]
    names = " or ".join(each.name for each in wanted)
    if not any(bundle.holds(each) for each in wanted):
        here = ", ".join(each.name for each in bundle.variants.values() if bundle.holds(each)) or "none"
        raise BundleError(f"{bundle.path}: the files of {names} are not here (variants that are: {here})")
    raise UsageError(f"{backend} does not run {names}; take backend='auto'")


def _find_engines(backend: str) -> list[Backend]:
    """The engines that "auto" or a name means. Raises UsageError if there is none."""
    engines = [engine for engine in BACKENDS if backend in ("auto", engine.name)]
    if not engines:
        raise UsageError(f"no engine {backend!r}; there are {', '.join(engine.name for engine in BACKENDS)}")
    return engines


def _read_model_file(path: Path) -> ModelFile:
    """An .onnx file on its own: its metadata holds the manifest's essentials. Raises BundleError and EngineError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        essentials = OnnxRuntimeBackend.load((content,), threads=1).metadata()
        version = essentials["format_version"]
        if version > FORMAT_VERSION:
            raise BundleError(f"format {version} is newer than this byol-edge reads; pip install --upgrade byol-edge")
        preprocessing = Preprocessing.from_json(essentials["preprocessing"])
        return ModelFile(essentials["variant"], (content,), preprocessing, int(essentials["embedding_size"]))
    except (BundleError, EngineError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: its metadata is not byol-edge's ({error}); export it again") from error
