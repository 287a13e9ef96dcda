"""A .parquet file of vectors, opened by what people already have, as it is."""

from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import VectorFile, save_vectors


@pytest.fixture(scope="module")
def content() -> VectorFile:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return VectorFile(vectors, [f"bärs/{row}.jpg" for row in range(60)], "0123456789ab:int8.onnx", "openvino")


@pytest.fixture(scope="module")
def file(content: VectorFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    save_vectors(path, content)
    return path


def test_pandas(file: Path, content: VectorFile):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(file)
    assert frame["source"].tolist() == content.sources
    assert np.array_equal(np.stack(frame["vector"]), content.vectors)


def test_polars(file: Path, content: VectorFile):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(file)
    assert frame["source"].to_list() == content.sources
    assert frame.schema["vector"] == polars.Array(polars.Float32, 8)
    assert np.array_equal(frame["vector"].to_numpy(), content.vectors)


def test_duckdb_searches_in_it(file: Path, content: VectorFile):
    duckdb = pytest.importorskip("duckdb")
    nearest = duckdb.sql(
        f"""
        select source, list_cosine_similarity(vector::float[], (select vector::float[] from '{file}' limit 1)) as cosine
        from '{file}' order by cosine desc limit 5
        """
    ).fetchall()
    cosines = content.vectors @ content.vectors[0]
    order = np.argsort(-cosines)[:5]
    assert [source for source, _ in nearest] == [content.sources[row] for row in order]
    np.testing.assert_allclose([cosine for _, cosine in nearest], cosines[order], atol=1e-5)
