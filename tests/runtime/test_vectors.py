from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ByolEdgeError, VectorFile, load_vectors, save_vectors

CONTENT = VectorFile(np.eye(3, dtype=np.float32), ["a.jpg", "mit Ümlaut.jpg", "c.jpg"], "abc:int8.onnx:onnxruntime")


def test_vectors_come_back_as_they_were(tmp_path: Path):
    save_vectors(tmp_path / "v.npz", CONTENT)
    loaded = load_vectors(tmp_path / "v.npz")
    assert np.array_equal(loaded.vectors, CONTENT.vectors)
    assert (loaded.sources, loaded.model) == (CONTENT.sources, CONTENT.model)


def test_the_file_needs_no_pickle_and_is_the_same_each_time(tmp_path: Path):
    save_vectors(tmp_path / "a.npz", CONTENT)
    save_vectors(tmp_path / "b.npz", CONTENT)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["model", "sources", "vectors"]
        assert file["vectors"].dtype == np.float32


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "v.npz").write_bytes(b"junk")
    np.savez(tmp_path / "w.npz", x=np.zeros(3))
    for name in ("v.npz", "w.npz", "gone.npz"):
        with pytest.raises(ByolEdgeError, match=f"{name}: not a file of vectors"):
            load_vectors(tmp_path / name)
