import json

import pytest
from byol_edge.runtime import ImageError, UsageError
from byol_edge.train.optimizer import RATES
from byol_edge.train.recipe import RECIPES, TrainConfig, compute_batch_size, compute_tau_base, resolve
from byol_edge.train.views import RandomAffine, RandomCrop


def test_small_images_get_the_small_recipe_and_photographs_the_papers_views():
    assert resolve(TrainConfig(image_size=64), 1000).recipe == "small"
    settings = resolve(TrainConfig(image_size=65), 1000)
    assert settings.recipe == "photographs"
    first, second = settings.views
    assert (first.blur, second.blur) == (1.0, 0.1)
    assert (first.solarize, second.solarize) == (0.0, 0.2)


def test_small_images_are_not_blurred():
    assert [view.blur for view in RECIPES["small"]().views] == [0, 0]


def test_glyphs_are_never_flipped_nor_cropped():
    for view in RECIPES["glyphs"]().views:
        assert view.flip == 0
        assert isinstance(view.geometry, RandomAffine)


@pytest.mark.parametrize(
    ("images", "epochs", "expected"),
    [
        (5, 100, 16),
        (320, 100, 16),
        (640, 100, 32),
        (3068, 3, 64),
        (3068, 100, 64),
        (5000, 200, 128),
        (50_000, 10, 64),
        (50_000, 200, 256),
        (10**6, 100, 256),
    ],
)
def test_the_batch_leaves_steps_enough_in_an_epoch_and_in_all(images: int, epochs: int, expected: int):
    assert compute_batch_size(images, epochs) == expected


def test_tau_follows_the_steps_and_comes_near_the_authors_values():
    for steps, authors in ((12_500, 0.97), (31_250, 0.99), (93_750, 0.99), (312_500, 0.996)):
        assert compute_tau_base(steps) == pytest.approx(authors, abs=0.0055)
    assert compute_tau_base(1250) == pytest.approx(0.9, abs=0.001)
    assert compute_tau_base(1) == compute_tau_base(200) == 0.9


def test_every_setting_can_be_given():
    given = {
        "recipe": "textures", "optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 0.01, "warmup_epochs": 2.5,
        "tau_base": 0.9, "projector_hidden": 64, "projection_size": 32, "accumulate": 2, "batch_size": 8, "fit": "pad",
    }  # fmt: skip
    settings = resolve(TrainConfig(**given, views={"blur": 0.1}, view_2={"blur": 0.7, "area": (0.5, 1)}), 100)
    assert {name: getattr(settings, name) for name in given} == given
    assert [view.blur for view in settings.views] == [0.1, 0.7]
    assert [view.geometry for view in settings.views] == [RandomCrop((0.2, 1.0)), RandomCrop((0.5, 1))]


def test_another_optimiser_brings_rates_of_its_own():
    adamw, lars = (resolve(TrainConfig(optimizer=name, batch_size=256), 1000) for name in ("adamw", "lars"))
    assert lars.learning_rate > 100 * adamw.learning_rate
    assert lars.weight_decay < adamw.weight_decay


def test_textures_keep_color_and_orientation():
    for view in RECIPES["textures"]().views:
        assert (view.flip, view.grayscale, view.solarize, view.color_jitter.hue, view.color_jitter.saturation) == (
            0,
        ) * 5


def test_every_recipe_says_what_it_is_for():
    assert all(recipe.__doc__ for recipe in RECIPES.values())


def test_the_rate_follows_the_batch_unless_it_is_given():
    base = RATES["adamw"].learning_rate
    assert resolve(TrainConfig(image_size=32, batch_size=256), 1000).learning_rate == pytest.approx(base)
    assert resolve(TrainConfig(image_size=32, batch_size=64), 1000).learning_rate == pytest.approx(base / 2)
    assert resolve(TrainConfig(image_size=32, batch_size=64, learning_rate=0.3), 1000).learning_rate == 0.3


def test_warm_up_is_ten_epochs_or_a_tenth_of_a_short_run():
    assert resolve(TrainConfig(epochs=300), 1000).warmup_epochs == 10
    assert resolve(TrainConfig(epochs=3), 1000).warmup_epochs == pytest.approx(0.3)


def test_fewer_images_than_a_batch_is_one_line_with_what_to_do():
    with pytest.raises(ImageError, match="20 images are fewer than a batch of 64: take --batch-size 20 or smaller"):
        resolve(TrainConfig(batch_size=64), 20)
    with pytest.raises(ImageError, match="3 images are fewer than a batch of 16: training needs more"):
        resolve(TrainConfig(), 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(batch_size=1), "--batch-size 1: at least 2"),
        (TrainConfig(epochs=0), "--epochs 0: at least 1"),
        (TrainConfig(image_size=8), "--image-size 8: at least 16"),
        (TrainConfig(seed=-1), "--seed -1"),
        (TrainConfig(workers=-1), "--workers -1"),
        (TrainConfig(learning_rate=float("nan")), "--learning-rate nan"),
        (TrainConfig(recipe="photo"), "no recipe 'photo'; there are photographs"),
        (TrainConfig(optimizer="adam"), "no optimizer 'adam'; there are adamw"),
        (TrainConfig(fit="stretch"), "no fit 'stretch'; there are crop"),
        (TrainConfig(batch_size=16, accumulate=3), "--accumulate 3: does not divide a batch of 16"),
        (TrainConfig(batch_size=16, accumulate=16), "--accumulate 16: at most 8"),
        (TrainConfig(tau_base=1.5), "--tau-base 1.5: at most 1"),
        (TrainConfig(warmup_epochs=-1), "--warmup-epochs -1: at least 0"),
        (TrainConfig(views={"brightnes": 1}), "a view has no 'brightnes'"),
    ],
)
def test_dials_out_of_range_are_refused(config: TrainConfig, message: str):
    with pytest.raises(UsageError, match=message):
        resolve(config, 100)


def test_settings_can_be_written_down():
    text = json.dumps(resolve(TrainConfig(image_size=32, recipe="glyphs"), 1000).to_json())
    assert json.loads(text)["views"][0]["geometry"]["kind"] == "RandomAffine"
