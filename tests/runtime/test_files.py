import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from byol_edge.runtime import OutputExistsError, RunError, files
from byol_edge.runtime.files import (
    FolderKind,
    check_output,
    locked,
    to_json,
    whole_file,
    whole_folder,
    write_text,
)

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


BUSY = RunError("another one is at work")


def test_a_lock_has_one_holder_and_is_free_afterwards(tmp_path: Path):
    for _ in range(2):
        with locked(tmp_path / "lock", BUSY):
            with pytest.raises(RunError, match="another one is at work"), locked(tmp_path / "lock", BUSY):
                raise AssertionError("two hold it")
            with locked(tmp_path / "other", BUSY):
                pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", BUSY):
        _ = 1 / 0
    with locked(tmp_path / "lock", BUSY):
        pass


HOLD = """
import sys, time
from pathlib import Path
from byol_edge.runtime import RunError
from byol_edge.runtime.files import locked
with locked(Path(sys.argv[1]), RunError("busy")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_gone_with_the_process_that_held_it(tmp_path: Path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError), locked(tmp_path / "lock", BUSY):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path / "lock", BUSY):
        pass


def test_a_lock_on_a_file_that_its_holder_deleted_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock_after_the_holder_is_done(handle: IO[str], operation: int) -> None:
        (tmp_path / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock_after_the_holder_is_done)
    with pytest.raises(RunError), locked(tmp_path / "lock", BUSY):
        pass


def test_where_a_file_system_has_no_locks_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(handle: IO[str], operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", BUSY):
        (tmp_path / "done").touch()
    assert (tmp_path / "done").exists()


def test_json_of_equal_values_is_equal():
    assert to_json({"b": 1, "a": [1.5, "é"]}) == to_json({"a": [1.5, "é"], "b": 1})


def stale(folder: Path, name: str) -> Path:
    left = folder / name
    left.mkdir()
    (left / "x").touch()
    return left


def write(path: Path, content: str, overwrite: bool = False) -> None:
    with whole_folder(path, overwrite, KIND) as part:
        (part / "manifest.json").write_text(content)


def test_the_parts_of_another_output_whose_name_goes_on_with_digits_are_left_alone(tmp_path: Path):
    other = stale(tmp_path, ".b.20261124.77.part")
    write(tmp_path / "b", "1")
    assert other.exists()
    file = tmp_path / ".v.npz.4000001.npz.77-1.part.npz"
    file.touch()
    with whole_file(tmp_path / "v.npz") as part:
        part.touch()
    assert file.exists()


def test_a_left_over_with_a_number_that_no_process_has_is_cleared(tmp_path: Path):
    left = stale(tmp_path, ".b.20261124083000.part")
    other = stale(tmp_path, ".b.20261124083000.77.part")
    write(tmp_path / "b", "1")
    assert not left.exists()
    assert other.exists()


def test_what_appeared_meanwhile_is_not_replaced(tmp_path: Path):
    with pytest.raises(OutputExistsError, match="exists already"), whole_folder(tmp_path / "b", False, KIND) as part:
        (part / "manifest.json").write_text("mine")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "manifest.json").write_text("theirs")
    assert (tmp_path / "b" / "manifest.json").read_text() == "theirs"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_what_appeared_meanwhile_and_is_no_bundle_is_not_replaced_either(tmp_path: Path):
    with pytest.raises(OutputExistsError, match="not a bundle"), whole_folder(tmp_path / "b", True, KIND) as part:
        (part / "manifest.json").write_text("mine")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "photo.jpg").touch()
    assert [entry.name for entry in (tmp_path / "b").iterdir()] == ["photo.jpg"]


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "b", "1")
    renamed: list[Path] = []
    rename = Path.rename

    def watch(self: Path, target: Path) -> Path:
        renamed.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watch)
    write(tmp_path / "b", "2", overwrite=True)
    assert tmp_path / "b" not in renamed  # never moved away: there was a bundle at every moment
    assert (tmp_path / "b" / "manifest.json").read_text() == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_kill_between_two_renames_is_mended_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a file system whose folders cannot change places."""
    write(tmp_path / "b", "1")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    write(tmp_path / "b", "2", overwrite=True)
    assert (tmp_path / "b" / "manifest.json").read_text() == "2"
    (tmp_path / "b").rename(tmp_path / ".b.20261124083000.old")  # as a kill leaves it, of a process that is gone
    with pytest.raises(OutputExistsError), whole_folder(tmp_path / "b", False, KIND):
        pass
    assert (tmp_path / "b" / "manifest.json").read_text() == "2"
