"""The real databases, embedded."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow
import pytest
from byol_edge.runtime import ByolEdgeError, Encoder, Index, VectorError, add, check, find_images, search
from byol_edge.runtime.identity import Maker
from byol_edge.runtime.lancedb_index import LanceDBIndex
from byol_edge.runtime.qdrant_index import QdrantIndex

pytestmark = pytest.mark.slow

MAKER = Maker("0123456789ab:int8.onnx", "onnxruntime")


class Lance:
    def open(self, folder: Path) -> Index:
        lancedb = pytest.importorskip("lancedb")
        return LanceDBIndex(lancedb.connect(str(folder)), "photos")

    def make_foreign(self, folder: Path) -> None:
        """A table that somebody else has made."""
        lancedb = pytest.importorskip("lancedb")
        vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.eye(2, 4, dtype=np.float32).ravel()), 4)
        table = pyarrow.table({"source": ["a", "b"], "vector": vectors})
        lancedb.connect(str(folder)).create_table("photos", table)

    def close(self) -> None: ...


class Qdrant:
    def __init__(self) -> None:
        self.clients: dict[Path, Any] = {}

    def _connect(self, folder: Path) -> Any:
        qdrant = pytest.importorskip("qdrant_client")
        if folder in self.clients:  # of an embedded one, there can be only one at a time
            self.clients.pop(folder).close()
        self.clients[folder] = qdrant.QdrantClient(path=str(folder))
        return self.clients[folder]

    def open(self, folder: Path) -> Index:
        return QdrantIndex(self._connect(folder), "photos")

    def make_foreign(self, folder: Path) -> None:
        from qdrant_client import models

        config = models.VectorParams(size=4, distance=models.Distance.COSINE)
        self._connect(folder).create_collection("photos", vectors_config=config)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


@pytest.fixture(params=[Lance, Qdrant])
def database(request: pytest.FixtureRequest) -> Iterator[Lance | Qdrant]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture(scope="module")
def encoder(finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, "int8.onnx", "onnxruntime")


def test_images_are_added_once_and_found_in_another_session(
    database: Lance | Qdrant, encoder: Encoder, photos: Path, tmp_path: Path
):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "mit Ümlaut, 'quoted'.png").write_bytes((images / "disc" / "03.png").read_bytes())
    paths = find_images(images)
    index = database.open(tmp_path / "db")
    assert index.find_maker() is None
    assert add(index, encoder, paths[:50]).count == 50
    index = database.open(tmp_path / "db")
    assert index.find_maker() == Maker(encoder.id, encoder.engine)
    assert add(index, encoder, paths).count == 121  # those of the first call are not there twice
    vectors = encoder.embed(paths)
    for row in (0, 50, 120):
        found = search(index, encoder, paths[row], 200)
        assert len(found) == len({each.source for each in found}) == 121
        cosines = dict(zip(map(str, paths), vectors @ vectors[row], strict=True))
        assert [each.cosine for each in found] == sorted((each.cosine for each in found), reverse=True)
        for each in found:
            assert each.cosine == pytest.approx(cosines[each.source], abs=1e-4)
    assert any("Ümlaut, 'quoted'" in each.source for each in found)


def test_another_encoder_is_refused(
    database: Lance | Qdrant, encoder: Encoder, finished_bundle: Path, photos: Path, tmp_path: Path
):
    paths = find_images(photos)[:8]
    index = database.open(tmp_path / "db")
    add(index, encoder, paths)
    other = Encoder(finished_bundle, "fp32.onnx", "onnxruntime")
    for attempt in (
        lambda: add(index, other, paths),
        lambda: search(index, other, paths[0]),
        lambda: check(index, other),
    ):
        with pytest.raises(VectorError, match=f"photos: its vectors are by {encoder.id}, this encoder is {other.id}"):
            attempt()
    assert len(search(index, encoder, paths[0], 100)) == 8


def test_a_table_that_does_not_say_what_made_it_is_refused(
    database: Lance | Qdrant, encoder: Encoder, photos: Path, tmp_path: Path
):
    database.make_foreign(tmp_path / "db")
    with pytest.raises(
        VectorError, match=r"photos: does not say which encoder made its vectors; embed the images again"
    ):
        add(database.open(tmp_path / "db"), encoder, find_images(photos)[:8])


def test_vectors_of_another_length_are_refused(database: Lance | Qdrant, tmp_path: Path):
    index = database.open(tmp_path / "db")
    index.insert(["a"], np.eye(1, 4, dtype=np.float32), MAKER)
    for attempt in (
        lambda: index.insert(["b"], np.eye(1, 5, dtype=np.float32), MAKER),
        lambda: index.find_nearest(np.ones(5, np.float32), 1),
    ):
        with pytest.raises(VectorError, match="photos: holds vectors of 4 numbers, not 5"):
            attempt()


def test_an_image_that_has_changed_gets_its_new_vector(database: Lance | Qdrant, tmp_path: Path):
    index = database.open(tmp_path / "db")
    rows = np.eye(3, 4, dtype=np.float32)
    index.insert(["a", "b", "c"], rows, MAKER)
    index.insert(["b"], rows[:1], MAKER)
    found = {each.source: each.cosine for each in index.find_nearest(rows[0], 5)}
    assert found == pytest.approx({"a": 1, "b": 1, "c": 0}, abs=1e-6)


def test_searching_before_anything_was_added_is_one_line(database: Lance | Qdrant, tmp_path: Path):
    with pytest.raises(ByolEdgeError, match=r"photos: there is no such (table|collection); add images first"):
        database.open(tmp_path / "db").find_nearest(np.ones(4, np.float32), 1)


def test_a_damaged_table_is_one_line(encoder: Encoder, photos: Path, tmp_path: Path):
    add(Lance().open(tmp_path / "db"), encoder, find_images(photos)[:8])
    for file in (tmp_path / "db").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ByolEdgeError, match="photos: LanceDB failed") as failed:
        search(Lance().open(tmp_path / "db"), encoder, find_images(photos)[0])
    assert "\n" not in str(failed.value)


READ_ONLY = """
import os, sys
import lancedb, numpy, pyarrow
from byol_edge.runtime import ByolEdgeError
from byol_edge.runtime.identity import Maker
from byol_edge.runtime.lancedb_index import LanceDBIndex

index = LanceDBIndex(lancedb.connect(sys.argv[1]), "photos")
if os.geteuid() == 0:  # root may write anywhere
    os.seteuid(65534)
assert len(index.find_nearest(numpy.ones(4, numpy.float32), 2)) == 1
try:
    index.insert(["b"], numpy.eye(1, 4, dtype=numpy.float32), Maker("0123456789ab:int8.onnx", "onnxruntime"))
except ByolEdgeError as error:
    print(error)
"""


def test_a_read_only_table_is_one_line():
    with TemporaryDirectory() as parent:  # not pytest's, which nobody else may enter
        folder = Path(parent) / "db"
        Lance().open(folder).insert(["a"], np.eye(1, 4, dtype=np.float32), MAKER)
        for place in (Path(parent), folder, *folder.rglob("*")):
            place.chmod(0o555 if place.is_dir() else 0o444)
        command = [sys.executable, "-c", READ_ONLY, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        for place in (Path(parent), folder, *folder.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
    assert "photos: LanceDB failed" in done.stdout, done.stderr
    assert "Permission denied" in done.stdout and len(done.stdout.splitlines()) == 1
