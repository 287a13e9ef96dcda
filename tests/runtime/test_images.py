import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from byol_edge.runtime import ByolEdgeError, ImageError, find_images, iterate_images
from byol_edge.runtime.images import SUFFIXES, folder_labels, read_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.JPG", "b/1.png", "a/x/deep.webp", "a/notes.txt", ".hidden/z.png", "b/._1.png", "b/3.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_images_are_found_below_and_in_order(folder: Path):
    found = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    assert found == ["a/x/deep.webp", "b/1.png", "b/2.JPG", "b/3.tiff"]


def test_a_single_file_is_itself(folder: Path):
    assert find_images(folder / "b" / "1.png") == [folder / "b" / "1.png"]


def test_nothing_to_find_is_an_error_that_names_the_folder(folder: Path):
    (folder / "none").mkdir()
    with pytest.raises(ImageError, match="none: no images in it or below it"):
        find_images(folder / "none")
    with pytest.raises(ImageError, match="gone: no such folder"):
        find_images(folder / "gone")


def test_links_are_followed_and_circles_left(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    linked = tmp_path_factory.mktemp("linked")
    (linked / "cls").symlink_to(folder / "b")
    (folder / "b" / "up").symlink_to(folder)
    assert [path.name for path in find_images(linked)] == ["1.png", "2.JPG", "3.tiff", "deep.webp"]


def test_of_two_links_to_a_folder_the_first_by_name_counts(tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.png").touch()
    for name in ("z", "b", "q", "a"):
        (tmp_path / name).symlink_to(tmp_path / "m")
    assert find_images(tmp_path) == [tmp_path / "a" / "1.png"]


def test_a_name_beyond_all_limits_is_an_image_error():
    with pytest.raises(ImageError, match="cannot be read"):
        find_images("x" * 5000)


def test_labels_are_the_first_folders(folder: Path):
    assert folder_labels(find_images(folder), folder) == ["a", "b", "b", "b"]


def test_no_labels_is_not_one_class_an_image(folder: Path):
    (folder / "top.png").touch()
    assert folder_labels(find_images(folder), folder) is None
    assert folder_labels(find_images(folder / "b"), folder) is None
    assert folder_labels([folder / "b" / "1.png", folder / "b" / "2.JPG"], folder) is None


def test_a_file_of_labels_that_is_none_is_an_error_of_what_is_on_the_disk(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "bytes.csv").write_bytes(b"image,label\n\xff,1\n")
    (tmp_path / "empty.csv").touch()
    for name in ("pipe", "zeros", "folder", "bytes", "empty", "gone"):
        with pytest.raises(ByolEdgeError, match=rf"{name}\.csv: ") as error:
            read_labels(tmp_path / f"{name}.csv", [tmp_path / "a.png"], tmp_path)
        assert error.value.exit_code == 1


def test_a_pipe_is_no_folder_of_images(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe: not a folder of images"):
        find_images(tmp_path / "pipe")


def list_and_sort(root: Path) -> list[Path]:
    """Everything at once, then in the order of the paths' parts."""
    found, seen = [], set()
    for parent, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parts = Path(parent).relative_to(root).parts
        found += [(*parts, name) for name in names if name[0] != "." and name.lower().endswith(tuple(SUFFIXES))]
    return [Path(root, *parts) for parts in sorted(found)]


def test_listed_folder_by_folder_paths_are_in_the_order_of_their_parts(tmp_path: Path):
    # Names that sort otherwise as text than as parts of a path, a folder named as an image, bytes that are no text.
    for name in (
        "a/1.png", "a.png", "a-b/1.png", "a b/1.png", "A/1.png", "é/1.png", "a/b.png/c.png", "a/b/c.png", "a/b.gif",
        ".hidden/1.png", "a/.hidden.png", "b\udcff/1.png", "b/x/y/z/1.jpg", "b/x.jpg", "empty/x/notes.txt",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, target in (("0", "b"), ("a/up", ".."), ("c.png", "a/1.png"), ("gone.png", "nothing"), ("x.png", "x.png")):
        (tmp_path / name).symlink_to(tmp_path / target)
    for root in (tmp_path, tmp_path / "a", Path(os.path.relpath(tmp_path)), tmp_path / "0"):
        expected = list_and_sort(root)
        assert find_images(root) == expected
        assert len(expected) > 1


def test_listing_takes_no_more_than_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    images = iterate_images(folder)
    assert listed == []
    assert next(images).name == "deep.webp"
    assert str(folder / "b") not in listed
    assert [path.name for path in images] == ["1.png", "2.JPG", "3.tiff"]
    assert len(listed) == len(set(listed)) == 4


def test_a_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch):
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder / "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match="b: cannot be listed"):
        find_images(folder)


def test_a_folder_may_be_deeper_than_python_recurses(tmp_path: Path):
    deep, limit = tmp_path / "d", sys.getrecursionlimit()
    for _ in range(400):
        deep.mkdir()
        deep = deep / "d"
    deep.with_name("1.png").touch()
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 200)
        assert find_images(tmp_path) == [deep.with_name("1.png")]
    finally:
        sys.setrecursionlimit(limit)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest itself would recurse
