import os
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ByolEdgeError, ImageError, UsageError
from byol_edge.runtime.nearest import find_neighbors, find_row
from byol_edge.runtime.vectors import VectorFile


def content(*vectors: tuple[float, float]) -> VectorFile:
    return VectorFile(np.array(vectors, np.float32), [f"{row}.jpg" for row in range(len(vectors))], "model", "engine")


def query(x: float, y: float) -> np.ndarray:
    return np.array([x, y], np.float32)


def test_the_nearest_come_first_whatever_their_length():
    found = find_neighbors(content((0, 3), (2, 0), (5, 5), (-1, 0)), query(10, 0), 3)
    assert [each.source for each in found] == ["1.jpg", "2.jpg", "0.jpg"]
    assert [each.cosine for each in found] == pytest.approx([1, np.sqrt(0.5), 0], abs=1e-6)


def test_the_query_is_left_out_and_its_double_is_not():
    vectors = content((1, 0), (1, 0), (0, 1))
    assert [each.source for each in find_neighbors(vectors, vectors.vectors[1], 10, leave_out=1)] == ["0.jpg", "2.jpg"]


def test_of_equals_the_first_is_the_nearer():
    found = find_neighbors(content((0, 1), *[(1, 0)] * 50), query(1, 0), 50)
    assert [each.source for each in found] == [f"{row}.jpg" for row in range(1, 51)]


def test_vectors_that_say_nothing_are_passed_over():
    found = find_neighbors(content((0, 0), (np.nan, 1), (np.inf, 1), (-1, 0)), query(1, 0), 10)
    assert [(each.source, each.cosine) for each in found] == [("3.jpg", -1)]


def test_where_there_is_no_neighbor_it_is_said():
    for vectors, of, row in (
        (content((1, 0)), query(1, 0), 0),
        (content((1, 0), (1, 0)), query(0, 0), None),
        (content((1, 0), (1, 0)), query(np.nan, 0), None),
    ):
        with pytest.raises(ByolEdgeError, match="no other image"):
            find_neighbors(vectors, of, 5, row)
    with pytest.raises(ByolEdgeError, match="a vector of 3 numbers, among others of 2"):
        find_neighbors(content((1, 0)), np.ones(3, np.float32), 5)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a/mug.jpg", "b/mug.jpg", "b/cup.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_image_is_found_however_its_path_is_spelled(places: Path):
    sources = ["a/mug.jpg", "b/mug.jpg", "b/cup.jpg"]
    Path("link").symlink_to("b")
    for spelled in ("b/mug.jpg", "./b/mug.jpg", "a/../b/mug.jpg", f"{places}/b/mug.jpg", "link/mug.jpg"):
        assert find_row(sources, spelled) == 1
    assert find_row([f"{places}/a/mug.jpg", f"{places}/b/mug.jpg"], "b/mug.jpg") == 1
    os.chdir("b")
    assert find_row([str(places / source) for source in sources], "mug.jpg") == 1


def test_images_that_are_gone_are_found_by_the_end_of_their_path(places: Path):
    sources = ["/there/a/mug.jpg", "/there/b/mug.jpg", "/there/b/cup.jpg", "/there/b/teacup2.jpg"]
    assert find_row(sources, "teacup2.jpg") == 3
    assert find_row(sources, "there/b/mug.jpg") == 1
    with pytest.raises(UsageError, match=r"mug.jpg: 2 images are named so, such as /there/a/mug.jpg; give more"):
        find_row(sources, "mug.jpg")
    for name in ("cup2.jpg", "c/cup.jpg", "no.jpg"):
        with pytest.raises(ImageError, match=f"{name}: no such file, and no image with a vector is named so"):
            find_row(sources, name)


def test_another_image_of_the_same_name_is_another_one(places: Path):
    Path("cup.jpg").touch()
    assert find_row(["b/cup.jpg"], "cup.jpg") is None
    assert find_row(["/there/cup.jpg"], "b/cup.jpg") is None


def test_names_that_are_no_text_are_found():
    assert find_row(["plain.jpg", "caf\\udce9.jpg"], "caf\udce9.jpg") == 1
    assert find_row(["plain.jpg", "caf\udce9.jpg"], "caf\udce9.jpg") == 1
