from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ImageError, Preprocessing
from byol_edge.runtime.preprocessing import prepare
from byol_edge.train.pictures import MARGIN, place, read_picture
from byol_edge.train.rendering import render
from byol_edge.train.views import RandomCrop, View, sample
from PIL import Image

SIDE = 24
STILL = View(RandomCrop((1, 1), (1, 1)), flip=0, jitter=0, grayscale=0)


def draw_image(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A smooth one: noise of 6 px, enlarged."""
    return Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def test_a_small_image_is_left_as_it_is(random: np.random.Generator):
    image = draw_image(random, (30, 20))
    picture = read_picture(image, Preprocessing(SIDE))
    assert np.array_equal(picture.pixels, np.asarray(image))
    assert picture.size == (30, 20)


@pytest.mark.parametrize(
    ("size", "fit", "expected"),
    [
        ((400, 300), "crop", (64, 48)),
        ((400, 30), "crop", (192, 30)),
        ((90, 60), "crop", (72, 48)),
        ((49, 1000), "crop", (48, 192)),
        ((400, 300), "squash", (48, 48)),
        ((400, 30), "squash", (48, 30)),
    ],
)
def test_a_picture_is_no_larger_than_views_need(
    random: np.random.Generator, size: tuple[int, int], fit: str, expected: tuple[int, int]
):
    picture = read_picture(draw_image(random, size), Preprocessing(SIDE, fit=fit))
    assert picture.pixels.shape == (*expected[::-1], 3)
    assert picture.size == size


def test_a_long_line_is_padded_without_filling_the_memory():
    picture = read_picture(Image.new("L", (60_000, 1)), Preprocessing(SIDE, fit="pad"))
    assert picture.pixels.shape == (MARGIN * SIDE, MARGIN * SIDE, 3)


@pytest.mark.parametrize("size", [(20, 30), (300, 200)])
def test_a_padded_picture_is_square(random: np.random.Generator, size: tuple[int, int]):
    preprocessing = Preprocessing(SIDE, fit="pad")
    picture = read_picture(draw_image(random, size), preprocessing)
    side = min(max(size), MARGIN * SIDE)
    assert picture.pixels.shape == (side, side, 3)
    assert tuple(picture.pixels[0, 0]) == preprocessing.border


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(300, 300), (300, 200), (190, 400)])
def test_crops_stay_in_place_in_a_smaller_image(random: np.random.Generator, size: tuple[int, int], fit: str):
    image, small = draw_image(random, size), Preprocessing(SIDE, fit=fit)
    large = Preprocessing(max(size), fit=fit)  # reads the image as it is
    for seed in range(4):
        views = []
        for preprocessing in (small, large):
            picture = read_picture(image, preprocessing)
            numbers = sample(View(RandomCrop((0.1, 1.0)), flip=0, jitter=0, grayscale=0), picture.size, fit,
                             np.random.default_rng(seed))  # fmt: skip
            views.append(render(picture.pixels, place(numbers, picture, fit), SIDE).astype(float))
        assert np.abs(views[0] - views[1]).mean() < 4  # half a pixel off is 7


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_the_whole_of_a_picture_is_what_the_network_sees(random: np.random.Generator, fit: str):
    image, preprocessing = draw_image(random, (300, 200)), Preprocessing(SIDE, fit=fit)
    picture = read_picture(image, preprocessing)
    numbers = place(sample(STILL, picture.size, fit, random), picture, fit)
    seen = render(picture.pixels, numbers, SIDE).astype(float)
    assert np.abs(seen - prepare(image, preprocessing)).mean() < 3


def test_a_large_jpeg_is_decoded_at_reduced_scale(random: np.random.Generator, tmp_path: Path):
    draw_image(random, (1605, 1203)).save(tmp_path / "large.jpg", quality=95)
    reduced = read_picture(tmp_path / "large.jpg", Preprocessing(SIDE))
    whole = read_picture(Image.open(tmp_path / "large.jpg"), Preprocessing(SIDE))
    assert reduced.size[0] / reduced.size[1] == pytest.approx(1605 / 1203)
    assert np.abs(reduced.pixels.astype(float) - whole.pixels).mean() < 2
    assert reduced.size != whole.size


def test_what_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        read_picture(tmp_path / "broken.jpg", Preprocessing(SIDE))
