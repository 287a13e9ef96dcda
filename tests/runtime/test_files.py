import errno
import io
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import OutputExistsError
from byol_edge.runtime.files import FolderKind, check_output, load_arrays, to_json, whole_file, whole_folder, write_text

KIND = FolderKind("bundle", "manifest.json", ("manifest.json", "*.onnx", "first", "second", "m"))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_whole(tmp_path: Path):
    write_text(tmp_path / "new" / "a.txt", "hello")
    assert (tmp_path / "new" / "a.txt").read_text() == "hello"
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, error: BaseException):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(type(error)), whole_file(target) as part:
        part.write_text("half")
        raise error
    assert target.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_a_failed_folder_leaves_what_was_there(tmp_path: Path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("before")
    with pytest.raises(OSError, match="full"), whole_folder(target, True, KIND) as part:
        (part / "manifest.json").write_text("half")
        raise OSError("full")
    assert (target / "manifest.json").read_text() == "before"
    assert names(tmp_path) == ["bundle"]


def test_a_folder_is_replaced_whole(tmp_path: Path):
    target = tmp_path / "bundle"
    for content in ("first", "second"):
        with whole_folder(target, True, KIND) as part:
            (part / "manifest.json").write_text(content)
            (part / content).touch()
    assert names(target) == ["manifest.json", "second"]
    assert names(tmp_path) == ["bundle"]


def test_an_output_that_exists_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").touch()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        check_output(tmp_path, False, KIND)
    check_output(tmp_path, True, KIND)
    check_output(tmp_path / "new", False, KIND)


def test_overwrite_never_replaces_something_of_another_kind(tmp_path: Path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(OutputExistsError, match="is not a bundle"):
        check_output(tmp_path, True, KIND)
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "holiday.jpg", True, KIND)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "link", True, KIND)


def test_overwrite_never_deletes_what_lies_beside_its_own(tmp_path: Path):
    for name in ("manifest.json", "fp32.onnx"):
        (tmp_path / name).touch()
    check_output(tmp_path, True, KIND)
    (tmp_path / "photo.png").touch()
    with pytest.raises(OutputExistsError, match=r"also holds photo\.png"), whole_folder(tmp_path, True, KIND):
        pass
    assert (tmp_path / "photo.png").exists()


def test_what_is_no_npz_is_a_value_error_with_a_reason(tmp_path: Path):
    file = tmp_path / "a.npz"
    with file.open("wb") as handle:
        np.savez(handle, x=np.arange(1000))
    assert load_arrays(file)["x"][999] == 999
    whole = file.read_bytes()
    np.save(tmp_path / "b.npy", np.zeros(3))
    for content in (b"", b"junk", whole[: len(whole) // 2], whole[:-30], (tmp_path / "b.npy").read_bytes()):
        with pytest.raises(ValueError, match=r"\w"):
            load_arrays(content)


def test_a_damaged_npz_is_a_value_error_whatever_the_damage(random: np.random.Generator):
    content = io.BytesIO()
    np.savez_compressed(content, x=np.arange(300), names=np.array(["a", "b"]))
    whole = content.getvalue()
    for place in random.integers(0, len(whole), 500):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        with suppress(ValueError):
            load_arrays(bytes(damaged))


def test_two_threads_may_write_one_file(tmp_path: Path):
    def write(letter: str) -> None:
        for _ in range(50):
            write_text(tmp_path / "a.txt", letter * 100_000)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, "ab"))
    assert (tmp_path / "a.txt").read_text() in ("a" * 100_000, "b" * 100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_empty_folder_may_be_written_to(tmp_path: Path):
    with whole_folder(tmp_path / "b", False, KIND) as part:
        (part / "m").touch()
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty", False, KIND) as part:
        (part / "m").touch()
    assert names(tmp_path / "empty") == ["m"]


def test_what_a_killed_process_left_is_cleared_and_a_living_ones_is_not(tmp_path: Path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".b.{process}.part").mkdir()
        (tmp_path / f".b.{process}.part" / "half").touch()
        (tmp_path / f".a.txt.{process}.part.txt").touch()
    with whole_folder(tmp_path / "b", False, KIND) as part:
        (part / "m").touch()
    write_text(tmp_path / "a.txt", "whole")
    alive = os.getppid()
    assert names(tmp_path) == [f".a.txt.{alive}.part.txt", f".b.{alive}.part", "a.txt", "b"]


def test_json_of_equal_values_is_equal():
    assert to_json({"b": 1, "a": [1.5, "é"]}) == to_json({"a": [1.5, "é"], "b": 1})
