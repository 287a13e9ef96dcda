import json

import pytest
from byol_edge.runtime import ImageError, UsageError
from byol_edge.train.recipe import RECIPES, Dials, compute_batch_size, resolve
from byol_edge.train.views import RandomAffine


def test_small_images_get_the_small_recipe_and_photographs_the_papers_views():
    assert resolve(Dials(image_size=64), 1000).recipe == "small"
    settings = resolve(Dials(image_size=65), 1000)
    assert settings.recipe == "photographs"
    first, second = settings.views
    assert (first.blur, second.blur) == (1.0, 0.1)
    assert (first.solarize, second.solarize) == (0.0, 0.2)


def test_small_images_are_not_blurred():
    assert [view.blur for view in RECIPES["small"].views] == [0, 0]


def test_glyphs_are_never_flipped_nor_cropped():
    for view in RECIPES["glyphs"].views:
        assert view.flip == 0
        assert isinstance(view.geometry, RandomAffine)


@pytest.mark.parametrize(
    ("images", "expected"), [(5, 16), (320, 16), (640, 32), (3068, 128), (5120, 256), (10**6, 256)]
)
def test_the_batch_leaves_twenty_steps_an_epoch(images: int, expected: int):
    assert compute_batch_size(images) == expected


def test_the_rate_follows_the_batch_unless_it_is_given():
    base = RECIPES["small"].learning_rate
    assert resolve(Dials(image_size=32, batch_size=256), 1000).learning_rate == pytest.approx(base)
    assert resolve(Dials(image_size=32, batch_size=64), 1000).learning_rate == pytest.approx(base / 2)
    assert resolve(Dials(image_size=32, batch_size=64, learning_rate=0.3), 1000).learning_rate == 0.3


def test_warm_up_is_ten_epochs_or_a_tenth_of_a_short_run():
    assert resolve(Dials(epochs=300), 1000).warmup_epochs == 10
    assert resolve(Dials(epochs=3), 1000).warmup_epochs == pytest.approx(0.3)


def test_fewer_images_than_a_batch_is_one_line_with_what_to_do():
    with pytest.raises(ImageError, match="20 images are fewer than a batch of 64: take --batch-size 20 or smaller"):
        resolve(Dials(batch_size=64), 20)
    with pytest.raises(ImageError, match="3 images are fewer than a batch of 16: training needs more"):
        resolve(Dials(), 3)


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        (Dials(batch_size=1), "--batch-size 1: at least 2"),
        (Dials(epochs=0), "--epochs 0: at least 1"),
        (Dials(image_size=8), "--image-size 8: at least 16"),
        (Dials(seed=-1), "--seed -1"),
        (Dials(workers=-1), "--workers -1"),
        (Dials(learning_rate=float("nan")), "--learning-rate nan"),
        (Dials(recipe="photo"), "no recipe 'photo'; there are photographs"),
    ],
)
def test_dials_out_of_range_are_refused(dials: Dials, message: str):
    with pytest.raises(UsageError, match=message):
        resolve(dials, 100)


def test_settings_can_be_written_down():
    text = json.dumps(resolve(Dials(image_size=32, recipe="glyphs"), 1000).to_json())
    assert json.loads(text)["views"][0]["geometry"]["kind"] == "RandomAffine"
