"""Partitions of a data set: Parquet files of images or of their paths, each embedded into a Parquet file of its name.

A partition is the unit of work of several machines: done whole or not at all, in the same bytes whoever does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .encoder import Encoder
from .errors import ByolEdgeError, UsageError, VectorError, brief
from .fidelity import Vectors
from .files import FolderKind, whole_file, whole_folder
from .identity import Maker, to_metadata
from .images import iterate_images
from .reading import BATCH_SIZE, batched
from .text import to_text
from .untrusted import open_regular
from .vectors import ROW_GROUP, import_parquet, read_maker

# The columns in which images are looked for, if none is named: as Hugging Face's data sets call it, and ours.
COLUMNS = ("image", "path")
# A folder's images, listed: this many paths a partition.
LISTED = 10_000
LISTS = FolderKind("list of images", "00000.parquet", ("*.parquet",))
# Rows that are read at a time: encoded images.
READ_ROWS = 256


@dataclass(frozen=True)
class Partition:
    """A Parquet file of images, and where its vectors go."""

    source: Path
    out: Path


@dataclass(frozen=True)
class Row:
    """One image of a partition: its vector, float32 `[D]`, or the reason why there is none."""

    source: str | None
    vector: Vectors | None
    error: str | None


def list_partitions(images: str | Path, folder: str | Path, size: int = LISTED) -> list[Path]:
    """Lists a folder's images into Parquet files of `size` absolute paths each, column `path`, below `folder`.

    They are listed once: what is in `folder` already is returned as it is, so that a job that is run again has the
    same partitions. Raises ImageError.
    """
    folder = Path(folder)
    if not (folder / LISTS.marker).exists():
        arrow, parquet = import_parquet("partitions take")
        with whole_folder(folder, False, LISTS) as part:
            for number, paths in enumerate(batched(iterate_images(images), size)):
                names = arrow.array([to_text(path.absolute()) for path in paths], arrow.string())
                parquet.write_table(arrow.table({"path": names}), part / f"{number:05}.parquet")
    return _list_parquet(folder)


def plan_partitions(sources: str | Path | Sequence[str | Path], out: str | Path) -> list[Partition]:
    """Where the vectors of each source go: into a file of its name in the folder `out`.

    `sources`: Parquet files, or a folder of them. Raises UsageError if there is none, or two have one name.
    """
    if isinstance(sources, (str, Path)):
        folder = Path(sources)
        files = _list_parquet(folder) if folder.is_dir() else [folder]
    else:
        files = [Path(source) for source in sources]
    if not files:
        raise UsageError(f"{sources if isinstance(sources, (str, Path)) else 'the list'}: no .parquet files")
    planned: dict[Path, Partition] = {}
    for file in files:
        # Absolute, since a worker on another machine stands in another folder.
        partition = Partition(file.absolute(), Path(out).absolute() / f"{file.stem}.parquet")
        if partition.out in planned:
            other = planned[partition.out].source
            text = "is given twice" if other == partition.source else f"and {other} would both be written to {out}"
            raise UsageError(f"{partition.source} {text}")
        if partition.out == partition.source:
            raise UsageError(f"{partition.source}: its vectors would replace it; write to another folder")
        planned[partition.out] = partition
    return list(planned.values())


def _list_parquet(folder: Path) -> list[Path]:
    """Only whole ones: a kill leaves a file with a dot before its name."""
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def is_embedded(partition: Partition, model: str, engine: str) -> bool:
    """Whether its vectors are there. Raises VectorError if they are by another model or engine, ByolEdgeError if they
    are of other rows."""
    if not partition.out.exists():
        return False
    done, source = (_read_metadata(path) for path in (partition.out, partition.source))
    made_by, wanted = read_maker(done.metadata), Maker(model, engine)
    if made_by != wanted:
        raise VectorError(
            f"{partition.out} holds vectors by {made_by}, and these would be by {wanted}: they do not mix; write to "
            "another folder"
        )
    if done.num_rows != source.num_rows:
        raise ByolEdgeError(
            f"{partition.out} has {done.num_rows} rows, and {partition.source} has {source.num_rows}: it has changed; "
            "delete the former, and it is embedded again"
        )
    return True


def embed_partition(
    encoder: Encoder, partition: Partition, column: str | None = None, batch_size: int = BATCH_SIZE, workers: int = 1
) -> tuple[int, int]:
    """Embeds a partition into its file, whole or not at all: how many images, and how many of them are unreadable.

    `column`: where its images are, as paths, bytes or Hugging Face's `{bytes, path}`; by default `image` or `path`.

    The file has the columns `source`, `vector` (a list of fixed size, float32) and `error`, in the partition's order,
    and the model and the engine in its metadata. An image that cannot be read has an error and no vector. Raises
    ByolEdgeError.
    """
    arrow, parquet = import_parquet("partitions take")
    fields = [
        ("source", arrow.string()),
        ("vector", arrow.list_(arrow.float32(), encoder.embedding_size)),
        ("error", arrow.string()),
    ]
    schema = arrow.schema(fields, metadata=to_metadata(Maker.of(encoder)))
    images, unreadable = 0, 0
    with (
        whole_file(partition.out) as part,
        part.open("wb") as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        rows = embed_rows(encoder, _read_images(partition.source, column), batch_size, workers)
        for group in batched(rows, ROW_GROUP):
            images += len(group)
            unreadable += sum(row.error is not None for row in group)
            writer.write_table(arrow.table(to_columns(group, encoder.embedding_size), schema=schema))
    return images, unreadable


def embed_rows(
    encoder: Encoder, images: Iterable[tuple[str | None, Any]], batch_size: int, workers: int
) -> Iterator[Row]:
    """A row for each image, in their order. An image is its name, and its path, its bytes, or None if it is missing."""
    names: deque[str | None] = deque()

    def contents() -> Iterator[Any]:
        for name, content in images:
            names.append(name)
            yield content

    first = 0
    for chunk in encoder.stream(contents(), batch_size, workers):
        vectors, errors = dict(zip(chunk.rows, chunk.vectors, strict=True)), iter(chunk.errors)
        end = first + len(chunk.rows) + len(chunk.errors)
        for row in range(first, end):
            if row in vectors:
                yield Row(names.popleft(), vectors[row], None)
            else:
                content, error = next(errors)
                yield Row(names.popleft(), None, "no image" if content is None else str(error))
        first = end


def to_columns(rows: Sequence[Row], embedding_size: int) -> dict[str, Any]:
    """Arrow's arrays `source`, `vector` and `error` of rows."""
    arrow, _ = import_parquet("partitions take")
    vectors = np.zeros((len(rows), embedding_size), np.float32)
    for place, row in enumerate(rows):
        if row.vector is not None:
            vectors[place] = row.vector
    missing = arrow.array([row.vector is None for row in rows], arrow.bool_())
    return {
        "source": arrow.array([None if row.source is None else to_text(row.source) for row in rows], arrow.string()),
        "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), embedding_size, mask=missing),
        "error": arrow.array([None if row.error is None else to_text(row.error) for row in rows], arrow.string()),
    }


def name_image(value: Any) -> tuple[str | None, Any]:
    """The name of an image in a column, and its path or bytes: text, bytes, or Hugging Face's `{bytes, path}`."""
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
        return path, path if content is None else content
    return value if isinstance(value, str) else None, value


def _read_images(source: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    """The images of a partition; one without a name has the partition's and the number of its row."""
    with _reading(source) as file:
        column = _find_column(source, file.schema_arrow.names, column)
        number = 0
        for batch in file.iter_batches(READ_ROWS, columns=[column], use_threads=False):
            for value in batch.column(0).to_pylist():
                name, content = name_image(value)
                yield name or f"{source.name}:{number}", content
                number += 1


def _find_column(source: Path, names: Sequence[str], column: str | None) -> str:
    wanted = (column,) if column else COLUMNS
    found = next((each for each in wanted if each in names), None)
    if found is None:
        raise ByolEdgeError(f"{source}: no column {' or '.join(wanted)}; it has {', '.join(names)}")
    return found


def _read_metadata(path: Path) -> Any:
    with _reading(path) as file:
        return file.metadata


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """An opened Parquet file. Raises ByolEdgeError, whatever goes wrong as it is read."""
    _, parquet = import_parquet("partitions take")
    try:
        # An open file, because Arrow takes some names for addresses, and refuses others.
        with open_regular(path) as file:
            yield parquet.ParquetFile(file, pre_buffer=False)
    except ByolEdgeError:
        raise
    except Exception as error:  # a damaged file makes pyarrow raise almost anything
        raise ByolEdgeError(f"{path}: cannot be read ({brief(error)})") from error
