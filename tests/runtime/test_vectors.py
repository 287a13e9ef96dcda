import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from byol_edge.runtime import ByolEdgeError, UsageError, VectorFile, load_vectors, save_vectors, untrusted, vectors
from byol_edge.runtime.identity import Made, Maker, to_metadata
from byol_edge.runtime.text import to_text
from byol_edge.runtime.vectors import Names, Sink, load_names, write_vectors

CONTENT = VectorFile(np.eye(3, dtype=np.float32), ["a.jpg", "mit Ümlaut.jpg", "c.jpg"], "abc:int8.onnx", "openvino")


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_vectors_come_back_as_they_were(tmp_path: Path, name: str):
    save_vectors(tmp_path / name, CONTENT)
    loaded = load_vectors(tmp_path / name)
    assert loaded.vectors.dtype == np.float32
    assert np.array_equal(loaded.vectors, CONTENT.vectors)
    assert (loaded.sources, loaded.model, loaded.engine) == (CONTENT.sources, CONTENT.model, CONTENT.engine)


def test_the_file_needs_no_pickle_and_is_the_same_each_time(tmp_path: Path):
    save_vectors(tmp_path / "a.npz", CONTENT)
    save_vectors(tmp_path / "b.npz", CONTENT)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["engine", "model", "sources", "vectors"]
        assert file["vectors"].dtype == np.float32


def test_parquet_is_a_column_of_lists_of_one_size(tmp_path: Path):
    save_vectors(tmp_path / "v.parquet", CONTENT)
    schema = pyarrow.parquet.read_schema(tmp_path / "v.parquet")
    assert schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 3)
    assert schema.metadata[b"byol_edge.model"].decode() == CONTENT.model
    assert schema.metadata[b"byol_edge.engine"].decode() == CONTENT.engine


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"byol-edge\[parquet\]"):
        save_vectors(tmp_path / "v.parquet", CONTENT)
    with pytest.raises(UsageError, match=r"\.npz or \.parquet"):
        save_vectors(tmp_path / "v.csv", CONTENT)


def test_one_long_name_does_not_give_all_of_them_its_room(tmp_path: Path):
    names = [f"{number:06}.jpg" for number in range(20_000)] + ["x" * 400]
    save_vectors(tmp_path / "v.npz", VectorFile(np.zeros((20_001, 1), np.float32), names, "m", "e"))
    assert (tmp_path / "v.npz").stat().st_size < 1_000_000
    assert load_vectors(tmp_path / "v.npz").sources == names


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_vectors_that_are_not_one_a_source_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    with pytest.raises(UsageError, match="of 3 sources"):
        save_vectors(tmp_path / "v.npz", VectorFile(np.zeros(shape, np.float32), ["a", "b", "c"], "m", "e"))
    assert not list(tmp_path.iterdir())


def test_shards_make_the_same_file_as_the_whole(tmp_path: Path):
    save_vectors(tmp_path / "whole.npz", CONTENT)
    shards = [VectorFile(CONTENT.vectors[row : row + 1], CONTENT.sources[row : row + 1], "", "") for row in range(3)]
    write_vectors(tmp_path / "shards.npz", shards, (3, 3), CONTENT)
    assert (tmp_path / "shards.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_sink_is_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write_lines(part: Path, shards: Iterable[VectorFile], shape: tuple[int, ...], made_by: Made) -> None:
        part.write_text("".join(f"{source}\n" for shard in shards for source in shard.sources))

    def read_names(path: Path) -> Names:
        return Names(path.read_text().splitlines(), "m", "e")

    def read(path: Path) -> VectorFile:
        names = read_names(path)
        return VectorFile(np.zeros((len(names.sources), 2), np.float32), names.sources, names.model, names.engine)

    monkeypatch.setitem(vectors.SINKS, ".txt", Sink(write_lines, read, read_names))
    save_vectors(tmp_path / "v.txt", CONTENT)
    assert load_names(tmp_path / "v.txt") == Names(CONTENT.sources, "m", "e")
    assert load_vectors(tmp_path / "v.txt").sources == CONTENT.sources
    with pytest.raises(UsageError, match=r"written as \.npz or \.parquet or \.txt"):
        save_vectors(tmp_path / "v.csv", CONTENT)


def test_a_parquet_file_does_not_depend_on_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vectors, "ROW_GROUP", 4)
    content = VectorFile(np.arange(22, dtype=np.float32).reshape(11, 2), [str(row) for row in range(11)], "m", "e")
    for name, cuts in (("whole", (0, 11)), ("shards", (0, 1, 2, 9, 11)), ("one", tuple(range(12)))):
        shards = [
            VectorFile(content.vectors[start:end], content.sources[start:end], "m", "e")
            for start, end in pairwise(cuts)
        ]
        write_vectors(tmp_path / f"{name}.parquet", shards, (11, 2), content)
        assert load_vectors(tmp_path / f"{name}.parquet").sources == content.sources
        assert (tmp_path / f"{name}.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert pyarrow.parquet.ParquetFile(tmp_path / "one.parquet").num_row_groups == 3


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "v.npz").write_bytes(b"junk")
    (tmp_path / "v.parquet").write_bytes(b"junk")
    pyarrow.parquet.write_table(pyarrow.table({"vector": [1.0]}), tmp_path / "w.parquet")
    np.savez(tmp_path / "w.npz", x=np.zeros(3))
    for name in ("v.npz", "w.npz", "v.parquet", "w.parquet"):
        with pytest.raises(ByolEdgeError, match=f"{name}: not a file of vectors"):
            load_vectors(tmp_path / name)
    for name in ("gone.npz", "gone.parquet"):
        with pytest.raises(ByolEdgeError, match=f"{name}: no such file"):
            load_vectors(tmp_path / name)


@pytest.mark.parametrize("missing", ["vector", "number", "source"])
def test_a_parquet_file_with_something_missing_is_refused(tmp_path: Path, missing: str):
    """A vector that is not there would give its row to the next."""
    path = tmp_path / "v.parquet"
    save_vectors(path, CONTENT)
    table = pyarrow.parquet.read_table(path)
    columns = {name: table.column(name).to_pylist() for name in ("source", "vector")}
    if missing == "number":
        columns["vector"][1][1] = None
    else:
        columns[missing][1] = None
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=table.schema), path)
    with pytest.raises(ByolEdgeError, match=r"v\.parquet: not a file of vectors .*are missing"):
        load_vectors(path)


def test_names_that_are_no_text_stay_apart(tmp_path: Path):
    sources = [os.fsdecode(name) for name in (b"\xff.png", b"\xfe.png", "ü.png".encode())]
    content = VectorFile(np.eye(3, dtype=np.float32), sources, "m", "e")
    save_vectors(tmp_path / "v.parquet", content)
    read = load_vectors(tmp_path / "v.parquet").sources
    assert len(set(read)) == 3
    assert read == [to_text(source) for source in sources]
    assert read[2] == "ü.png"


@pytest.mark.parametrize(
    "changed",
    [
        {"vectors": np.float32(1)},
        {"vectors": np.zeros((3, 0), np.float32)},
        {"vectors": np.zeros((3, 2, 2), np.float32)},
        {"vectors": np.zeros((3, 2))},
        {"vectors": np.zeros((2, 2), np.float32)},
        {"vectors": np.array([None] * 3)},
        {"sources": np.str_("abc")},
        {"sources": np.arange(3)},
        {"sources": np.array([["a"], ["b"], ["c"]])},
        {"model": np.zeros(3)},
        {"model": np.array(["m"] * 3)},
        {"engine": np.zeros(3)},
    ],
)
def test_arrays_that_are_no_vectors_or_no_names_are_refused(tmp_path: Path, changed: dict[str, np.ndarray]):
    good = {"vectors": np.eye(3, dtype=np.float32), "sources": np.array(["a", "b", "c"])}
    made_by = {"model": np.array("m"), "engine": np.array("e")}
    np.savez(tmp_path / "v.npz", **{**good, **made_by, **changed})
    with pytest.raises(ByolEdgeError, match=r"v\.npz: not a file of vectors") as error:
        load_vectors(tmp_path / "v.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("vector", "source"),
    [
        (pyarrow.list_(pyarrow.float32()), pyarrow.string()),
        (pyarrow.list_(pyarrow.float64(), 2), pyarrow.string()),
        (pyarrow.list_(pyarrow.string(), 2), pyarrow.string()),
        (pyarrow.list_(pyarrow.float32(), 0), pyarrow.string()),
        (pyarrow.string(), pyarrow.string()),
        (pyarrow.list_(pyarrow.float32(), 2), pyarrow.int64()),
        (pyarrow.list_(pyarrow.float32(), 2), pyarrow.list_(pyarrow.string())),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path: Path, vector: pyarrow.DataType, source: pyarrow.DataType):
    schema = pyarrow.schema([("source", source), ("vector", vector)], metadata=to_metadata(Maker("m", "e")))
    pyarrow.parquet.write_table(schema.empty_table(), tmp_path / "v.parquet")
    with pytest.raises(ByolEdgeError, match=r"v\.parquet: not a file of vectors") as error:
        load_vectors(tmp_path / "v.parquet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, suffix: str):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"zeros{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zeros"):
        with pytest.raises(ByolEdgeError, match=f"{name}{suffix}: not a regular file"):
            load_names(tmp_path / f"{name}{suffix}")


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(OSError, match="not a file to write"):
        save_vectors(tmp_path / "pipe.npz", CONTENT)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe.npz"]
    assert (tmp_path / "pipe.npz").is_fifo()


def test_a_parquet_file_that_unpacks_to_many_times_its_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    zeros = VectorFile(np.zeros((10_000, 100), np.float32), [str(number) for number in range(10_000)], "m", "e")
    save_vectors(tmp_path / "v.parquet", zeros)
    assert len(load_vectors(tmp_path / "v.parquet").sources) == 10_000
    monkeypatch.setattr(vectors, "MOST_UNPACKED", 10**6)
    with pytest.raises(ByolEdgeError, match="many times the file"):
        load_names(tmp_path / "v.parquet")


READS = """
import sys
import pyarrow.parquet
from byol_edge.runtime import load_vectors

class Opened(pyarrow.parquet.ParquetFile):
    def read(self, *arguments, **settings):
        print(settings.get("use_threads", True))
        return super().read(*arguments, **settings)

def refuse(*_, **__):
    raise SystemExit("read_table")

pyarrow.parquet.ParquetFile, pyarrow.parquet.read_table = Opened, refuse
load_vectors(sys.argv[1])
"""


def test_parquet_is_read_by_no_other_thread(tmp_path: Path):
    """One that let go of the file while Python ended would end the process by SIGABRT, one time in ten under load."""
    save_vectors(tmp_path / "v.parquet", CONTENT)
    done = subprocess.run([sys.executable, "-c", READS, tmp_path / "v.parquet"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_names_that_take_much_room_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two million of 130 letters: packed, they would be refused as what unpacks to far more than the file."""
    for module in (untrusted, vectors):
        monkeypatch.setattr(module, "MOST_UNPACKED", 10_000)
    content = VectorFile(np.ones((100, 2), np.float32), [f"{number:0>130}" for number in range(100)], "m", "e")
    save_vectors(tmp_path / "v.npz", content)
    assert load_vectors(tmp_path / "v.npz").sources == content.sources
    assert load_names(tmp_path / "v.npz") == Names(content.sources, "m", "e")


def test_a_long_name_that_a_parquet_file_holds_once_is_in_memory_once(tmp_path: Path):
    """34 kB named one of a megabyte 8000 times."""
    same = VectorFile(np.ones((100, 2), np.float32), ["a" * 10_000] * 100, "m", "e")
    save_vectors(tmp_path / "v.parquet", same)
    sources = load_vectors(tmp_path / "v.parquet").sources
    assert sources == same.sources
    assert len({id(source) for source in sources}) == 1
