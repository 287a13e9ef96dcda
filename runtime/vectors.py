"""Files of vectors: what `byol-edge embed` writes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ByolEdgeError, UsageError, VectorError, brief
from .fidelity import Vectors
from .files import whole_file
from .identity import UNNAMED, Made, Maker, to_metadata
from .text import to_text
from .untrusted import MOST_UNPACKED, load_arrays

# Rows of a Parquet file that are written, and can be read, together.
ROW_GROUP = 8192
# What the vectors of a Parquet file may unpack to: this many times the file, and MOST_UNPACKED bytes beyond. A hostile
# one of a few kilobytes could take all the memory.
MOST_RATIO = 8


@dataclass(frozen=True)
class VectorFile:
    """`vectors`: float32 `[N, D]`. `sources`: N names. `model` and `engine`: the `Encoder.id` and `Encoder.engine` that
    made them."""

    vectors: Vectors
    sources: list[str]
    model: str
    engine: str


@dataclass(frozen=True)
class Names:
    """A file of vectors without its vectors; see VectorFile."""

    sources: list[str]
    model: str
    engine: str


# Writes shards to a path; the shape `[N, D]` of all of them together.
Write = Callable[[Path, Iterable[VectorFile], tuple[int, ...], Made], None]


@dataclass(frozen=True)
class Sink:
    """A file format for vectors, known by its suffix.

    `read` and `read_names`, which leaves the vectors on the disk, raise KeyError or ValueError for anything else.
    `check` raises UsageError where something that the format takes is not installed.
    """

    write: Write
    read: Callable[[Path], VectorFile]
    read_names: Callable[[Path], Names]
    check: Callable[[Path], object] = lambda path: None


def save_vectors(path: str | Path, content: VectorFile) -> None:
    """Writes an .npz (no pickles) or a .parquet file, whole or not at all.

    Raises UsageError for another suffix, and where there is not one vector per source.
    """
    if content.vectors.ndim != 2 or len(content.vectors) != len(content.sources):
        raise UsageError(f"{path}: vectors {list(content.vectors.shape)} of {len(content.sources)} sources")
    write_vectors(Path(path), [content], content.vectors.shape, content)


def write_vectors(path: Path, shards: Iterable[VectorFile], shape: tuple[int, ...], made_by: Made) -> None:
    """The same from shards, of which one at a time is in memory. `shape`: `[N, D]` of all of them together."""
    sink = check_format(path)
    with whole_file(path) as part:
        sink.write(part, shards, shape, made_by)


def check_format(path: Path) -> Sink:
    """What writes a file with this suffix. Raises UsageError if nothing does, or if what it takes is not installed."""
    sink = SINKS.get(path.suffix)
    if sink is None:
        raise UsageError(f"{path}: vectors are written as {' or '.join(SINKS)}; name the file so")
    sink.check(path)
    return sink


def load_vectors(path: str | Path) -> VectorFile:
    """Reads a file of vectors. Raises ByolEdgeError, naming the file."""
    with _reading(path):
        return _find_sink(Path(path)).read(Path(path))


def load_names(path: str | Path) -> Names:
    """What a file of vectors says of them; the vectors stay on the disk. Raises ByolEdgeError."""
    with _reading(path):
        return _find_sink(Path(path)).read_names(Path(path))


def _find_sink(path: Path) -> Sink:
    return SINKS.get(path.suffix, SINKS[".npz"])


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    if not Path(path).is_file():  # opening a pipe would wait for ever
        what = "not a regular file" if Path(path).exists() else "no such file"
        raise ByolEdgeError(f"{path}: {what}")
    try:
        yield
    except VectorError as error:
        raise VectorError(f"{path}: {error.message}") from None
    except ByolEdgeError:
        raise
    except KeyError as error:
        raise ByolEdgeError(f"{path}: not a file of vectors: it holds no {brief(error)}") from error
    except Exception as error:  # a damaged file makes pyarrow raise almost anything
        raise ByolEdgeError(f"{path}: not a file of vectors written by `byol-edge embed` ({brief(error)})") from error


def _write_npz(part: Path, shards: Iterable[VectorFile], shape: tuple[int, ...], made_by: Made) -> None:
    """As np.savez does, which however takes the whole array at once."""
    sources: list[str] = []
    with zipfile.ZipFile(part, "w") as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for shard in shards:
                file.write(np.ascontiguousarray(shard.vectors, "<f4").tobytes())
                sources += shard.sources
        texts = {"sources": sources, "model": made_by.model, "engine": made_by.engine}
        for name, array in ((name, np.asarray(text, np.str_)) for name, text in texts.items()):
            entry = zipfile.ZipInfo(f"{name}.npy")
            # Numpy pads every name to the length of the longest. What unpacks to too much would not be read again.
            entry.compress_type = zipfile.ZIP_DEFLATED if 2 * array.nbytes < MOST_UNPACKED else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _read_npz_names(path: Path) -> Names:
    return _names_of(load_arrays(path, ("sources", "model", "engine")))


def _read_npz(path: Path) -> VectorFile:
    arrays = load_arrays(path)
    vectors, names = arrays["vectors"], _names_of(arrays)
    return _join(vectors, names)


def _names_of(arrays: Mapping[str, NDArray[Any]]) -> Names:
    for name, dimensions in (("sources", 1), ("model", 0), ("engine", 0)):
        if name not in arrays and name != "sources":
            raise VectorError(UNNAMED)
        array = arrays[name]
        if array.dtype.kind != "U" or array.ndim != dimensions:
            raise ValueError(f"its {name} are {array.dtype} {list(array.shape)}, not text")
    return Names([str(name) for name in arrays["sources"]], str(arrays["model"]), str(arrays["engine"]))


def _join(vectors: NDArray[Any], names: Names) -> VectorFile:
    wrong = vectors.dtype != np.float32 or vectors.ndim != 2
    if wrong or len(vectors) != len(names.sources) or vectors.shape[1] < 1:
        raise ValueError(f"{vectors.dtype} {list(vectors.shape)} vectors of {len(names.sources)} sources")
    return VectorFile(vectors, names.sources, names.model, names.engine)


def _write_parquet(part: Path, shards: Iterable[VectorFile], shape: tuple[int, ...], made_by: Made) -> None:
    """Columns `source` and `vector`, a list of fixed size; what made the vectors in the metadata."""
    _, parquet = import_parquet(f"{part}: .parquet takes")
    schema = to_table([], np.zeros((0, shape[1]), np.float32), made_by).schema
    # An open file, because Arrow takes some names for addresses, and refuses others.
    with part.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for rows, sources in _regroup(shards):
            writer.write_table(to_table(sources, rows, made_by))


def to_table(sources: Sequence[str], vectors: Vectors, made_by: Made) -> Any:
    """An Arrow table of the columns `source` and `vector`, a list of fixed size; its metadata says what made these."""
    import pyarrow

    size = vectors.shape[1]
    kinds = [("source", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32(), size))]
    schema = pyarrow.schema(kinds, metadata=to_metadata(made_by))
    values = pyarrow.array(vectors.ravel(), pyarrow.float32())
    names = pyarrow.array([to_text(source) for source in sources], pyarrow.string())
    return pyarrow.table([names, pyarrow.FixedSizeListArray.from_arrays(values, size)], schema=schema)


def read_maker(metadata: Mapping[bytes, bytes] | None) -> Maker:
    """What made the vectors of an Arrow table, by its schema's metadata. Raises VectorError if that does not say."""
    return Maker.from_metadata({key.decode(): text.decode() for key, text in (metadata or {}).items()})


def _regroup(shards: Iterable[VectorFile]) -> Iterator[tuple[Vectors, list[str]]]:
    """The same rows in groups of one size, so that a file does not depend on where its shards ended."""
    vectors: list[Vectors] = []
    sources: list[str] = []
    for shard in shards:
        vectors.append(shard.vectors)
        sources += shard.sources
        while len(sources) >= ROW_GROUP:
            joined = np.concatenate(vectors)
            yield joined[:ROW_GROUP], sources[:ROW_GROUP]
            vectors, sources = [joined[ROW_GROUP:]], sources[ROW_GROUP:]
    if sources:
        yield np.concatenate(vectors), sources


def _read_parquet_names(path: Path) -> Names:
    return _names_of_table(_read_table(path, ["source"]))


def _read_parquet(path: Path) -> VectorFile:
    table = _read_table(path, None)
    column = table.column("vector").combine_chunks()
    values = column.flatten()
    if column.null_count or values.null_count:  # a missing one would move all that follow it up
        raise ValueError("some of its vectors, or of their numbers, are missing")
    return _join(values.to_numpy().reshape(len(table), column.type.list_size), _names_of_table(table))


def _read_sources(table: Any) -> list[str]:
    column = table.column("source")
    if not str(column.type).startswith("dictionary<values=string,"):
        raise ValueError(f"its sources are {column.type}, not text")
    if column.null_count:
        raise ValueError("some of its sources are missing")
    sources = []
    for chunk in column.chunks:
        different = chunk.dictionary.to_pylist()
        sources += [different[place] for place in chunk.indices.to_pylist()]
    return sources


def _read_table(path: Path, columns: list[str] | None) -> Any:
    arrow, parquet = import_parquet(f"{path}: .parquet takes")
    with path.open("rb") as file:
        # Not read_table: its threads may let go of the file while Python ends, which ends the process by SIGABRT.
        # As a dictionary: the file may hold a long name once, and name it a million times.
        opened = parquet.ParquetFile(file, pre_buffer=False, read_dictionary=["source"])
        kind = opened.schema_arrow.field("vector").type
        if not arrow.types.is_fixed_size_list(kind) or kind.value_type != arrow.float32():
            raise ValueError(f"its vectors are {kind}, not lists of float32 of one size")
        unpacked = 4 * kind.list_size * opened.metadata.num_rows
        if unpacked > MOST_RATIO * path.stat().st_size + MOST_UNPACKED:
            raise ValueError(f"its vectors unpack to {unpacked} bytes, many times the file")
        if "error" not in opened.schema_arrow.names:
            return opened.read(columns, use_threads=False)
        # A partition's file (runtime/partitions.py) has a row without a vector for each image that could not be read.
        table = opened.read(columns and [*columns, "error"], use_threads=False)
        return table.filter(table.column("error").is_null())


def _names_of_table(table: Any) -> Names:
    made_by = read_maker(table.schema.metadata)
    return Names(_read_sources(table), made_by.model, made_by.engine)


def import_parquet(taker: str) -> tuple[Any, Any]:
    """pyarrow, and its parquet module. Raises UsageError, which begins with `taker`, if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"{taker} pyarrow: pip install 'byol-edge[parquet]'") from None
    return pyarrow, pyarrow.parquet


SINKS = {
    ".npz": Sink(_write_npz, _read_npz, _read_npz_names),
    ".parquet": Sink(
        _write_parquet, _read_parquet, _read_parquet_names, lambda path: import_parquet(f"{path}: .parquet takes")
    ),
}
