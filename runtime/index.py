"""Vectors that are searched: a file, or a database. Each says what made it, and only such an encoder adds or searches.

    index = LanceDBIndex(lancedb.connect("shop.lancedb"), "photos")
    add(index, encoder, find_images("photos"))
    search(index, encoder, "mug.jpg", 10)

Instead of LanceDBIndex: QdrantIndex, or a class of your own with the methods of Index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .bundle import MANIFEST, Bundle
from .choosing import AUTO, BACKENDS
from .embedding import Embedded
from .encoder import Encoder
from .errors import ByolEdgeError, EngineError, VectorError, brief
from .fidelity import Vectors
from .identity import Made, Maker, check_maker
from .nearest import Neighbor
from .reading import BATCH_SIZE, batched
from .stream import Streamer, embed_one
from .text import to_text
from .vectors import VectorFile, load_names

# Vectors that are inserted at once.
INSERTED = 1024


class Index(Protocol):
    """A table of a database. What goes wrong in it is raised as ByolEdgeError, with its `name`."""

    name: str

    def find_maker(self) -> Maker | None:
        """What made its vectors; None while there is no such table. Raises VectorError where the table does not say."""
        ...

    def insert(self, sources: Sequence[str], vectors: Vectors, made_by: Maker) -> None:
        """Adds vectors `[N, D]`, and makes the table if need be. A source that is there already gets the new vector."""
        ...

    def find_nearest(self, query: Vectors, count: int) -> list[Neighbor]:
        """The `count` sources whose vectors are nearest to `query` `[D]` by cosine, nearest first."""
        ...


@contextmanager
def naming(name: str, database: str) -> Iterator[None]:
    """Whatever a database raises within the block, as a ByolEdgeError of one line that begins with the table's name."""
    try:
        yield
    except ByolEdgeError as error:
        raise type(error)(f"{name}: {error.message}", **error.arguments) from error
    except Exception as error:
        raise ByolEdgeError(f"{name}: {database} failed: {brief(error)}") from error


def check_size(held: int, size: int) -> None:
    """Raises VectorError if a table holds vectors of another length."""
    if held != size:
        raise VectorError(f"holds vectors of {held} numbers, not {size}; they are of another encoder")


def check(vectors: VectorFile | Index | str | Path, encoder: Streamer) -> None:
    """Raises VectorError, naming both, if vectors do not mix with an encoder's: a file of them, or a database.

    They mix if they are of the same model (`Encoder.id`), on the same engine or on one that agrees with it as far as
    the export recorded. A database without a table yet mixes with every encoder.
    """
    made = _find_maker(vectors)
    if made is not None:
        check_maker(_name(vectors), made, encoder)


def open_like(vectors: VectorFile | Index | str | Path, path: str | Path, **options: Any) -> Encoder:
    """The Encoder, of a bundle or an .onnx file of one, whose vectors mix with these: see open_as and check.

    For a database without a table yet, the Encoder that a bundle gives by default.
    """
    made = _find_maker(vectors)
    if made is None:
        return Encoder(path, **options)
    encoder = open_as(made, path, **options)
    check_maker(_name(vectors), made, encoder)
    return encoder


def open_as(made: Made, path: str | Path, **options: Any) -> Encoder:
    """Opens the variant that `made` names, on the engine that it names or, where that cannot run here, on another.

    What a bundle has under another name or not at all is left to the default, for check_maker to refuse. `options`: of
    Encoder, apart from variant and backend.
    """
    _, _, variant = made.model.partition(":")
    engine, _, device = made.engine.partition(":")
    known = engine in [each.name for each in BACKENDS]
    if (Path(path) / MANIFEST).exists():
        known = known and variant in Bundle.open(path, options.get("public_key")).variants
        options["variant"] = variant if known else AUTO
    if not known:
        return Encoder(path, **options)
    try:
        return Encoder(path, backend=engine, **{"device": device or "cpu", **options})
    except EngineError:
        return Encoder(path, **options)


def _find_maker(vectors: VectorFile | Index | str | Path) -> Made | None:
    if isinstance(vectors, VectorFile):
        return vectors
    return load_names(vectors) if isinstance(vectors, (str, Path)) else vectors.find_maker()


def _name(vectors: VectorFile | Index | str | Path) -> str:
    if isinstance(vectors, VectorFile):
        return "these vectors"
    return str(vectors) if isinstance(vectors, (str, Path)) else vectors.name


def add(index: Index, encoder: Streamer, images: Iterable[Any], batch_size: int = BATCH_SIZE) -> Embedded:
    """Embeds any number of images into a database, in bounded memory. Raises VectorError.

    After a kill, the same call adds what is missing, and leaves no image twice. Images that cannot be read are left
    out: see `Embedded.errors`.
    """
    check(index, encoder)
    count, errors = 0, []
    batches = max(1, INSERTED // batch_size)  # a database takes few large inserts better than many small ones
    for chunks in batched(encoder.stream(images, batch_size), batches):
        sources = [to_text(str(source)) for chunk in chunks for source in chunk.sources]
        if sources:
            index.insert(sources, np.concatenate([chunk.vectors for chunk in chunks]), Maker.of(encoder))
        count += len(sources)
        errors += [str(error) for chunk in chunks for _, error in chunk.errors]
    return Embedded(count, errors)


def search(index: Index, encoder: Streamer, image: Any, count: int = 10) -> list[Neighbor]:
    """The images of a database that are nearest to `image`, nearest first. Raises VectorError and ImageError."""
    check(index, encoder)
    return index.find_nearest(embed_one(encoder, image), count)
