from pathlib import Path

import numpy as np
import pytest
from byol_edge.evaluate.intervals import bootstrap_interval
from byol_edge.evaluate.label_free import MOST_IMAGES, draw_views, view_consistency
from byol_edge.evaluate.raw import embed_raw
from byol_edge.runtime.errors import ImageError
from byol_edge.runtime.preprocessing import Preprocessing, prepare
from numpy.typing import NDArray
from PIL import Image
from shapes import SHAPES, draw_shape


def around(directions: NDArray[np.floating], random: np.random.Generator, spread: float) -> NDArray[np.float32]:
    return (directions + spread * random.normal(size=directions.shape)).astype(np.float32)


def test_known_values():
    whole = np.eye(4, dtype=np.float32)
    # The two nearest of equals are the first: of the images 1 2, 0 2, 0 1 and 0 1. Any image's view has, of the nearest
    # of the last, 0 in three of four cases and 1 in three of four.
    assert view_consistency(whole, whole)[3] == pytest.approx((1 + 1 - 3 / 4) / 2, abs=1e-6)
    # Image 2's view is image 3: one is nearer than its own, and two as near. Of its nearest, 0 and 1, the view has 0;
    # those of the four views are 1 2, 0 2, 3 0 and 2 0, which is as many by chance.
    moved = view_consistency(whole, whole[[1, 0, 3, 2]])
    assert moved[2] == pytest.approx((1 - np.log(3) / np.log(4)) / 2, abs=1e-6)


def test_views_that_lead_back_are_worth_more_the_closer_they_are(random: np.random.Generator):
    whole = random.normal(size=(100, 32)).astype(np.float32)
    means = [view_consistency(whole, around(whole, random, spread)).mean() for spread in (0, 0.3, 1, 3)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.9
    assert means[-1] < 0.4


def test_more_views_are_averaged(random: np.random.Generator):
    whole, near, far = (around(np.eye(30), random, spread) for spread in (0, 0.1, 0.3))
    one, other = view_consistency(whole, near), view_consistency(whole, far)
    assert view_consistency(whole, near, far) == pytest.approx((one + other) / 2)


def test_knowing_the_class_counts_beside_knowing_the_image(random: np.random.Generator):
    kinds = np.repeat(np.eye(32)[:6], 20, 0)
    whole = around(kinds, random, 0.05)
    of_classes = view_consistency(whole, around(kinds, random, 0.05))  # nothing of the image itself is left
    unrelated = view_consistency(whole, around(kinds[random.permutation(120)], random, 0.05))
    assert bootstrap_interval(of_classes - unrelated).lower > 0.1


@pytest.mark.parametrize("count", [2, 20, 50, 300])
def test_a_collapse_is_worth_what_chance_gives(count: int, random: np.random.Generator):
    noise = [around(np.ones((count, 16)), random, 1e-3) for _ in range(3)]
    assert view_consistency(*noise).mean() < 0.5 / np.log(count) + 0.1
    constant = np.full((count, 16), 0.25, np.float32)
    assert view_consistency(constant, constant, constant).mean() < 0.5 / np.log(count) + 0.1


def test_one_image_near_all_others_is_no_merit(random: np.random.Generator):
    """The neighbors of every image are the same ten: kept by any view, but by any other image's view, too."""
    whole = around(np.ones((200, 16)), random, 0.5)
    whole[:10] = 1
    view = around(np.ones((200, 16)), random, 0.5)
    assert view_consistency(whole, view).mean() < 0.2


def test_broken_rows_have_zero_and_spoil_no_other(random: np.random.Generator):
    whole = random.normal(size=(60, 16)).astype(np.float32)
    broken = whole.copy()
    broken[3], broken[4], broken[5, 0] = np.nan, 0, np.inf
    values = view_consistency(whole, broken)
    assert values[3:6].tolist() == [0, 0, 0]
    assert np.delete(values, [3, 4, 5]).min() > 0.8
    assert view_consistency(np.full_like(whole, np.nan), whole).tolist() == [0] * 60
    assert view_consistency(whole[:1], whole[:1]).tolist() == [0]


def test_views_are_parts_of_the_image_at_the_networks_size(photos: Path):
    images = sorted(photos.rglob("*.png"))[:6]
    preprocessing = Preprocessing(32)
    views = draw_views(images, preprocessing)
    assert [each.shape for each in (views.whole, views.first, views.second)] == [(6, 32, 32, 3)] * 3
    assert (views.whole == [prepare(path, preprocessing) for path in images]).all()
    assert (views.first != views.second).any(axis=(1, 2, 3)).all()
    again = draw_views([Image.open(path) for path in images], preprocessing)
    assert (again.first == views.first).all()
    assert (draw_views(images, preprocessing, seed=1).first != views.first).any()


def test_encoders_of_two_sizes_see_the_same_views(photos: Path):
    images = sorted(photos.rglob("*.png"))[::20]
    small, large = draw_views(images, Preprocessing(32)), draw_views(images, Preprocessing(64))
    reduced = large.first.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(reduced - small.first).mean() < 8


def test_mirror_images_are_views_only_where_they_are_the_same_thing():
    left = np.zeros((64, 64, 3), np.uint8)
    left[:, :32] = 255
    images = [Image.fromarray(left)] * 40

    def turned(mirrored: float) -> float:
        """Share of the views that are brighter on the right."""
        columns = draw_views(images, Preprocessing(32), mirrored).first.astype(float).mean((1, 3))
        return float((columns[:, -1] > columns[:, 0]).mean())

    assert turned(0) == 0
    assert 0.1 < turned(0.5) < turned(1)


def test_no_more_images_than_it_takes():
    image = Image.new("RGB", (8, 8))
    assert len(draw_views([image] * (MOST_IMAGES + 5), Preprocessing(8)).whole) == MOST_IMAGES


def test_an_unreadable_image_is_named(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        draw_views([tmp_path / "broken.png"], Preprocessing(16))


def test_images_that_are_all_alike_decide_nothing():
    views = draw_views([Image.new("RGB", (40, 40), (90, 120, 30))] * 50, Preprocessing(16))
    one = view_consistency(*(embed_raw(each) for each in (views.whole, views.whole)))
    assert one.max() < 0.2


def test_an_encoder_of_shapes_is_better_than_pixels_and_a_collapsed_one_worse(random: np.random.Generator):
    images = [draw_shape(shape, random, 48, 48) for shape in SHAPES for _ in range(25)]
    views = draw_views(images, Preprocessing(48))
    pixels = view_consistency(*(embed_raw(each) for each in (views.whole, views.first, views.second)))
    kinds = np.eye(75) + np.repeat(np.eye(75)[:3], 25, 0)
    shapes = view_consistency(*(around(kinds, random, 0.1) for _ in range(3)))
    collapsed = view_consistency(*(around(np.ones((75, 16)), random, 1e-3) for _ in range(3)))
    assert bootstrap_interval(shapes - pixels).lower > 0
    assert bootstrap_interval(pixels - collapsed).lower > 0
