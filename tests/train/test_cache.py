import errno
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.runtime import Preprocessing, RunError, find_images
from byol_edge.train import cache as caching
from byol_edge.train.cache import Cache, name_folder, open_cache
from byol_edge.train.pictures import read_picture
from PIL import Image

PREPROCESSING = Preprocessing(24)


@pytest.fixture
def images(random: np.random.Generator, tmp_path: Path) -> Path:
    """Eight photographs of several sizes, one of which is longer than twice the network's side."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        size = (20 + 5 * number, 40)
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def open_all(folder: Path, images: Path, preprocessing: Preprocessing = PREPROCESSING) -> Cache:
    return open_cache(folder, find_images(images), preprocessing, workers=0)


def no_decoding(*_: object) -> None:
    raise AssertionError("an image was decoded")


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*{suffix}"))


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_cached_picture_is_the_decoded_one(images: Path, folder: Path, fit: str):
    preprocessing = Preprocessing(24, fit=fit)
    cache = open_all(folder, images, preprocessing)
    for row, path in enumerate(find_images(images)):
        cached, decoded = cache.read(row), read_picture(path, preprocessing)
        assert cached is not None
        assert np.array_equal(cached.pixels, decoded.pixels)
        assert cached.size == decoded.size


def test_what_is_there_is_not_decoded_again(images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    open_all(folder, images)
    monkeypatch.setattr(caching, "read_picture", no_decoding)
    assert (open_all(folder, images).shard >= 0).all()


def test_runs_of_other_images_share_a_folder(images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    paths = find_images(images)
    open_cache(folder, paths[:5], PREPROCESSING, workers=0)
    open_cache(folder, paths[3:], PREPROCESSING, workers=0)
    assert len(files(folder, ".npz")) == 2
    monkeypatch.setattr(caching, "read_picture", no_decoding)
    cache = open_cache(folder, paths[::-1], PREPROCESSING, workers=0)
    picture = cache.read(0)
    assert picture is not None
    assert np.array_equal(picture.pixels, read_picture(paths[-1], PREPROCESSING).pixels)


def test_an_image_that_has_changed_is_decoded_again(images: Path, folder: Path):
    paths = find_images(images)
    before = paths[2].stat()
    open_all(folder, images)
    Image.fromarray(np.full((30, 40, 3), 7, np.uint8)).save(paths[2])
    os.utime(paths[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    picture = open_all(folder, images).read(2)
    assert picture is not None
    assert (picture.pixels == 7).all()


def test_an_image_that_changes_while_the_cache_is_open_is_not_taken_from_it(images: Path, folder: Path):
    cache = open_all(folder, images)
    Image.fromarray(np.full((30, 40, 3), 7, np.uint8)).save(images / "2.png")
    assert cache.read(2) is None
    (images / "2.png").unlink()
    assert cache.read(2) is None


@pytest.mark.parametrize("changed", [0, 1])
def test_of_many_images_some_are_looked_at_and_all_if_one_has_changed(
    images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, changed: int
):
    open_all(folder, images)
    monkeypatch.setattr(caching, "CHECKED", 4)
    for number in (changed, 5):
        Image.fromarray(np.full((30, 40, 3), 7, np.uint8)).save(images / f"{number}.png")
    cache = open_all(folder, images)  # checks 0, 2, 4 and 6
    found = [cache.read(number) for number in (changed, 5)]
    if changed == 0:
        assert all(each is not None and (each.pixels == 7).all() for each in found)
    else:
        assert found == [None, None]


def test_copies_of_different_times_share_a_folder(images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    stamp, later = caching._stamp, [0]
    monkeypatch.setattr(caching, "_stamp", lambda path: tuple(each + later[0] for each in stamp(path)))
    for later[0] in (0, 1):
        open_all(folder, images)
    monkeypatch.setattr(caching, "read_picture", no_decoding)
    for later[0] in (0, 1, 0):
        cache = open_all(folder, images)
        assert None not in [cache.read(row) for row in range(8)]


def test_an_image_that_changes_twice_is_not_decoded_in_each_run(
    images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    for shade in (1, 2, 3):
        Image.fromarray(np.full((30, 40, 3), shade, np.uint8)).save(images / "2.png")
        open_all(folder, images)
    monkeypatch.setattr(caching, "read_picture", no_decoding)
    picture = open_all(folder, images).read(2)
    assert picture is not None
    assert (picture.pixels == 3).all()


def test_pictures_that_are_made_otherwise_lie_apart():
    others = Preprocessing(32), *(Preprocessing(24, fit=fit) for fit in ("squash", "pad"))
    assert len({name_folder(each) for each in (PREPROCESSING, *others, Preprocessing(24, (0, 0, 0), fit="pad"))}) == 5
    assert name_folder(Preprocessing(24, (0.5, 0.5, 0.5))) == name_folder(PREPROCESSING)


def test_what_another_process_is_writing_is_left_alone(images: Path, folder: Path, caplog: pytest.LogCaptureFixture):
    open_all(folder, images)
    (folder / name_folder(PREPROCESSING) / ".abc.npz.1-2.part.npz").write_bytes(b"half")
    assert (open_all(folder, images).shard >= 0).all()
    assert "damaged" not in caplog.text


def test_many_shards_hold_no_file_open(images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caching, "SHARD_BYTES", 1)
    monkeypatch.setattr(caching, "CHUNK", 1)
    cache, before = open_all(folder, images), len(list(Path("/proc/self/fd").iterdir()))
    pictures = [cache.read(row) for row in range(8)]
    assert len(files(folder, ".npz")) == 8
    assert None not in pictures
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_shard_that_is_cut_off_meanwhile_is_not_needed(images: Path, folder: Path):
    cache = open_all(folder, images)
    os.truncate(cache.shards[0], 10)
    assert cache.read(7) is None


def test_filling_draws_nothing_from_a_runs_random_numbers(images: Path, folder: Path):
    before = torch.get_rng_state()
    open_all(folder, images)
    assert torch.equal(torch.get_rng_state(), before)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(("suffix", "damage"), [(".npz", cut), (".pixels", cut), (".pixels", Path.unlink)])
def test_a_damaged_shard_is_named_and_made_again(
    images: Path, folder: Path, suffix: str, damage, caplog: pytest.LogCaptureFixture
):
    open_all(folder, images)
    damage(files(folder, suffix)[0])
    cache = open_all(folder, images)
    assert "damaged, and left out" in caplog.text
    for row, path in enumerate(find_images(images)):
        picture = cache.read(row)
        assert picture is not None
        assert np.array_equal(picture.pixels, read_picture(path, PREPROCESSING).pixels)


def test_a_cache_that_is_deleted_meanwhile_is_not_needed(images: Path, folder: Path):
    cache = open_all(folder, images)
    shutil.rmtree(folder)
    assert cache.read(0) is None


def test_without_space_the_rest_is_decoded(
    images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(caching, "SHARD_BYTES", 6000)
    write, calls = caching._write_shard, []

    def fill_up(*arguments) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(caching, "CHUNK", 1)
    monkeypatch.setattr(caching, "_write_shard", fill_up)
    cache = open_all(folder, images)
    assert "cannot be filled (No space left on device)" in caplog.text
    assert 0 < (cache.shard >= 0).sum() < 8
    assert cache.read(7) is None


def test_a_disk_that_is_nearly_full_is_left_to_others(
    images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    usage = shutil.disk_usage(images)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert (open_all(folder, images).shard < 0).all()
    assert "no space is left" in caplog.text
    assert not files(folder, "")[1:]


def test_an_unreadable_image_is_left_out(images: Path, folder: Path, caplog: pytest.LogCaptureFixture):
    (images / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with caplog.at_level(logging.INFO):
        cache = open_all(folder, images)
    assert cache.shard.tolist() == [0, 0, 0, -1, 0, 0, 0, 0]
    assert "has 0 of 8 pictures" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(images: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cache=.*file: cannot be written"):
        open_all(tmp_path / "file", images)
