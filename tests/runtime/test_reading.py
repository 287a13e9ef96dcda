import shutil
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ImageError, Preprocessing, find_images, prepare
from byol_edge.runtime.preprocessing import Pixels
from byol_edge.runtime.reading import batched, draw_from, draw_images, read_batches, read_images

SIDE = 8
PREPROCESSING = Preprocessing(SIDE)


def numbered(number: int) -> Pixels:
    return np.full((SIDE, SIDE, 3), number, np.uint8)


def mixed(count: int, *broken: int) -> list[Pixels | bytes]:
    """Images that hold their own number, those of some numbers unreadable."""
    return [b"x" if number in broken else numbered(number) for number in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_image_is_in_one_batch_under_its_place(batch_size: int, workers: int):
    batches = list(read_batches(iter(mixed(11, 2, 3, 7)), PREPROCESSING, batch_size, workers))
    assert len(batches) == -(-11 // batch_size)
    assert [row for batch in batches for row in batch.rows] == [0, 1, 4, 5, 6, 8, 9, 10]
    assert [each.row for batch in batches for each in batch.unreadable] == [2, 3, 7]
    assert all(each.source == b"x" for batch in batches for each in batch.unreadable)
    for batch in batches:
        assert batch.pixels.shape == (len(batch.rows), SIDE, SIDE, 3)
        assert batch.pixels[:, 0, 0, 0].tolist() == batch.rows
        assert all(source is not None for source in batch.sources)


def test_all_at_once_is_the_same_and_none_is_an_array_too():
    read = read_images(mixed(70, 0, 69), PREPROCESSING)
    assert read.rows == read.pixels[:, 0, 0, 0].tolist() == list(range(1, 69))
    assert [each.row for each in read.unreadable] == [0, 69]
    for nothing in ([], [b"x"]):
        assert read_images(nothing, PREPROCESSING).pixels.shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize(("most", "unreadable"), [(1, []), (2, [1]), (33, [1]), (99, [1, 40])])
def test_reading_ends_with_as_many_as_are_wanted(most: int, unreadable: list[int]):
    taken = []
    read = read_images((taken.append(each) or each for each in mixed(100, 1, 40)), PREPROCESSING, most)
    expected = [row for row in range(100) if row not in (1, 40)][:most]
    assert read.rows == expected
    assert read.pixels[:, 0, 0, 0].tolist() == expected
    assert len(read.sources) == len(expected)
    assert [each.row for each in read.unreadable] == unreadable
    assert len(taken) == 100 if most > 64 else len(taken) <= 96


def test_images_are_drawn_from_all_over_a_folder_the_same_each_time(photos: Path):
    drawn = draw_images(photos, PREPROCESSING, 30)
    assert np.array_equal(drawn, draw_images(photos, PREPROCESSING, 30))
    assert np.array_equal(drawn[:7], draw_images(photos, PREPROCESSING, 7))
    other = draw_from(find_images(photos), PREPROCESSING, 30, seed=1)
    assert not np.array_equal(drawn, other.pixels)
    places = {prepare(path, PREPROCESSING).tobytes(): place for place, path in enumerate(find_images(photos))}
    rows = [places[image.tobytes()] for image in drawn]
    assert len(set(rows)) == 30
    assert {row // 40 for row in rows} == {0, 1, 2}


def test_what_cannot_be_drawn_is_warned_of_and_nothing_at_all_is_an_error(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "broken.jpg").write_bytes(b"x")
    for path in find_images(photos)[:5]:
        shutil.copy(path, tmp_path)
    assert len(draw_images(tmp_path, PREPROCESSING, 10)) == 5
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("left out: ")
    assert "broken.jpg" in message
    with pytest.raises(ImageError, match=r"none of the 1 images can be read; the first: .*broken\.jpg"):
        draw_from([tmp_path / "broken.jpg"], PREPROCESSING, 10)


def test_batches_are_of_one_size_but_the_last():
    assert list(batched(iter(range(7)), 3)) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert list(batched([], 3)) == []
