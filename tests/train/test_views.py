import dataclasses

import numpy as np
import pytest
from byol_edge.runtime import Preprocessing, UsageError
from byol_edge.train.pictures import place, read_picture
from byol_edge.train.rendering import render
from byol_edge.train.views import ColorJitter, RandomAffine, RandomCrop, View, change_view, sample
from PIL import Image

SIDE = 24


def still(**changes: object) -> View:
    """A view that changes nothing but what is named."""
    return View(**{"geometry": RandomCrop((1, 1), (1, 1)), "flip": 0, "jitter": 0, "grayscale": 0, **changes})


@pytest.fixture
def image(random: np.random.Generator) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def draw_view(image: Image.Image, view: View, preprocessing: Preprocessing, rng: np.random.Generator) -> np.ndarray:
    picture = read_picture(image, preprocessing)
    numbers = place(sample(view, picture.size, preprocessing.fit, rng), picture, preprocessing.fit)
    return render(picture.pixels, numbers, preprocessing.image_size)


def draw(image: Image.Image, view: View, seed: int = 0) -> np.ndarray:
    return draw_view(image, view, Preprocessing(SIDE), np.random.default_rng(seed))


def test_a_view_that_changes_nothing_is_the_image(image: Image.Image):
    assert np.array_equal(draw(image, still()), np.asarray(image))


def test_views_depend_on_the_generator_alone(image: Image.Image):
    view = View(blur=0.5, solarize=0.2)
    assert np.array_equal(draw(image, view, 3), draw(image, view, 3))
    assert not np.array_equal(draw(image, view, 3), draw(image, view, 4))


def test_each_image_has_draws_of_its_own(image: Image.Image):
    # torchvision's v2 transforms draw one crop for a whole batch.
    random = np.random.default_rng(0)
    drawn = [draw_view(image, View(), Preprocessing(SIDE), random).tobytes() for _ in range(8)]
    assert len(set(drawn)) == 8


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (still(flip=1), lambda pixels: pixels[:, ::-1]),
        (still(solarize=1), lambda pixels: np.where(pixels < 128, pixels, 255 - pixels)),
    ],
)
def test_changes_that_are_exact(image: Image.Image, view: View, expected):
    assert np.array_equal(draw(image, view), expected(np.asarray(image)))


def test_gray_has_equal_channels(image: Image.Image):
    gray = draw(image, still(grayscale=1))
    assert (gray[..., 0] == gray[..., 1]).all()
    assert (gray[..., 0] == gray[..., 2]).all()


def test_blur_takes_detail_away(image: Image.Image):
    assert draw(image, still(blur=1, blur_sigma=(2, 2))).std() < np.asarray(image).std() / 2


def test_jitter_changes_colors_and_not_places():
    image = Image.new("RGB", (SIDE, SIDE), (120, 80, 200))
    drawn = draw(image, still(jitter=1))
    assert drawn.reshape(-1, 3).std(0).max() == 0
    assert drawn[0, 0].tolist() != [120, 80, 200]
    assert draw(image, still(jitter=1, color_jitter=ColorJitter(0, 0, 0, 0)))[0, 0].tolist() == pytest.approx(
        [120, 80, 200], abs=2
    )


@pytest.mark.parametrize("field", ["flip", "grayscale", "solarize"])
def test_probabilities_are_kept(image: Image.Image, field: str):
    unchanged = np.asarray(image).tobytes()
    random = np.random.default_rng(0)
    view = still(**{field: 0.2})
    changed = sum(draw_view(image, view, Preprocessing(SIDE), random).tobytes() != unchanged for _ in range(1000))
    assert 150 < changed < 250


def test_crops_have_the_area_and_ratio_asked_for():
    # An image whose color says where it was taken from.
    width, height = 200, 100
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = Image.fromarray(np.stack([x, y * 2, x * 0], axis=2).astype(np.uint8))
    random = np.random.default_rng(0)
    for _ in range(50):
        pixels = draw_view(image, still(geometry=RandomCrop((0.1, 0.5))), Preprocessing(64), random).astype(float)
        w = (pixels[:, -1, 0] - pixels[:, 0, 0]).mean() * 64 / 63
        h = (pixels[-1, :, 1] - pixels[0, :, 1]).mean() / 2 * 64 / 63
        assert 0.08 < w * h / (width * height) < 0.53
        assert 0.7 < w / h < 1.42


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_any_shape_can_be_cropped(size: tuple[int, int]):
    assert draw(Image.new("RGB", size, (9, 9, 9)), View()).shape == (SIDE, SIDE, 3)


def test_an_affine_view_moves_the_whole_and_fills_with_the_background():
    pixels = np.full((SIDE, SIDE, 3), 250, np.uint8)
    pixels[8:16, 8:16] = 10  # a dark square on light ground
    affine = RandomAffine(rotation=20, scale=(0.8, 1.2), shear=10, shift=0.1)
    for seed in range(20):
        drawn = draw(Image.fromarray(pixels), still(geometry=affine), seed)
        assert 30 < (drawn[..., 0] < 128).sum() < 120  # 64 before, times .64 to 1.44
        assert (drawn[0] > 200).all()


def test_an_affine_view_of_no_amount_is_the_image(image: Image.Image):
    nothing = RandomAffine(rotation=0, scale=(1, 1), shear=0, shift=0)
    assert np.array_equal(draw(image, still(geometry=nothing)), np.asarray(image))


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("geometry", [RandomCrop(), RandomAffine(10, (0.9, 1.1), 5, 0.1)])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (90, 20)])
def test_every_fit_draws_views_of_any_shape(fit: str, geometry: RandomCrop | RandomAffine, size: tuple[int, int]):
    image = Image.new("RGB", size, (9, 9, 9))
    pixels = draw_view(image, View(geometry), Preprocessing(SIDE, fit=fit), np.random.default_rng(0))
    assert pixels.shape == (SIDE, SIDE, 3)


def test_the_whole_of_a_squashed_image_is_one_crop_and_of_a_padded_one_has_borders():
    image = Image.new("RGB", (80, 40), (200, 10, 10))
    whole = still(geometry=RandomCrop((1, 1), (1, 1)))
    squashed, padded = (
        draw_view(image, whole, Preprocessing(SIDE, fit=fit), np.random.default_rng(0)) for fit in ("squash", "pad")
    )
    assert (squashed == (200, 10, 10)).all()
    assert padded[0, 0].tolist() == [124, 116, 104]
    assert padded[SIDE // 2, SIDE // 2].tolist() == [200, 10, 10]


def test_a_view_is_changed_by_the_names_of_its_parts():
    changed = change_view(View(), {"area": [0.2, 1], "hue": 0, "blur": 0.5})
    assert changed == View(RandomCrop((0.2, 1)), color_jitter=ColorJitter(hue=0), blur=0.5)
    assert change_view(View(), {}) == View()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotation": 3}, "a view has no 'rotation'; there are flip"),
        ({"geometry": {}}, "a view has no 'geometry'"),
        ({"area": 0.5}, "area = 0.5, needs two numbers"),
        ({"area": [1, 0.2]}, "two numbers, the smaller first"),
        ({"blur": "much"}, "blur = 'much', needs a number"),
        ({"blur": True}, "blur = True"),
        ({"flip": -1}, "flip = -1"),
    ],
)
def test_changes_that_make_no_view_are_named(changes: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        change_view(View(), changes)


def test_the_numbers_of_a_view_depend_on_the_generator_and_the_size_alone():
    view = View(blur=0.5, solarize=0.5)
    first, again, other = (sample(view, (90, 40), "crop", np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_the_numbers_are_in_range(fit: str):
    rng = np.random.default_rng(0)
    width, height = 90, 41
    outer = {"pad": (0, -24.5, 90, 65.5)}.get(fit, (0, 0, width, height))
    for _ in range(300):
        drawn = sample(View(RandomCrop((0.2, 1.0)), blur=0.5, solarize=0.5), (width, height), fit, rng)
        left, top, right, bottom = drawn.box
        assert outer[0] <= left < right <= outer[2]
        assert outer[1] <= top < bottom <= outer[3]
        assert sorted(drawn.order) == [0, 1, 2, 3]
        assert all(0.6 <= factor <= 1.4 for factor in drawn.colors[:2])
        assert 0.8 <= drawn.colors[2] <= 1.2
        assert -0.1 <= drawn.colors[3] <= 0.1
        assert drawn.blur_sigma == 0 or 0.1 <= drawn.blur_sigma <= 2
        assert drawn.matrix is None


def test_a_crop_and_an_affine_of_the_whole_are_one_geometry():
    """The same box, and a matrix that is none or the identity: the same pixels, whichever the geometry."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    crop = sample(still(geometry=RandomAffine(0, (1, 1), 0, 0)), image.size, "crop", np.random.default_rng(0))
    assert crop.box == (10, 0, 50, 40)
    assert crop.matrix == pytest.approx((1, 0, 0, 0, 1, 0))
    whole = dataclasses.replace(crop, matrix=None)
    pixels = np.asarray(image)
    assert np.array_equal(render(pixels, crop, SIDE), render(pixels, whole, SIDE))


def test_a_matrix_is_counted_from_the_middle_in_sides():
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[4:8, 10:14] = 255
    still_view = sample(still(), (SIDE, SIDE), "crop", np.random.default_rng(0))
    moved = dataclasses.replace(still_view, matrix=(1, 0, 0.25, 0, 1, 0))  # looks a quarter of a side to the right
    drawn = render(pixels, moved, SIDE)
    assert np.array_equal(drawn[4:8, 4:8], np.full((4, 4, 3), 255))
    assert drawn.sum() == pixels.sum()
