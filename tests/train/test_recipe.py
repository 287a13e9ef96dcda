import dataclasses
from pathlib import Path

import pytest
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.guided_byol import GuidedBYOLConfig
from byol_edge.runtime.run import Run
from byol_edge.train.config import TrainConfig
from byol_edge.train.optimizer import RATES
from byol_edge.train.pretrain import pretrain
from byol_edge.train.recipe import RECIPES
from byol_edge.train.settings import resolve
from byol_edge.train.views import RandomAffine
from training import CONFIG


def test_small_images_get_the_small_recipe_and_photographs_the_papers_views():
    assert resolve(TrainConfig(image_size=64), 1000).recipe == "small"
    settings = resolve(TrainConfig(image_size=65), 1000)
    assert settings.recipe == "photographs"
    first, second = settings.views
    assert (first.blur, second.blur) == (1.0, 0.1)
    assert (first.solarize, second.solarize) == (0.0, 0.2)


@pytest.mark.parametrize(
    ("config", "recipe", "rate"),
    [
        (TrainConfig(teacher="imagenet"), "distillation", 6e-3),
        (TrainConfig(teacher="imagenet", optimizer="sgd"), "distillation", RATES["sgd"].learning_rate),
        (TrainConfig(init="imagenet"), "adaptation", 1e-3),
        (TrainConfig(init="imagenet", teacher="imagenet"), "adaptation", 1e-3),
        (TrainConfig(init="imagenet", objective=BYOLConfig()), "photographs", 1e-3),
        (TrainConfig(teacher="imagenet", objective=GuidedBYOLConfig()), "adaptation", 1e-3),
    ],
)
def test_a_teacher_and_a_start_choose_recipe_and_rate(config: TrainConfig, recipe: str, rate: float):
    settings = resolve(dataclasses.replace(config, batch_size=256), 1000)
    assert (settings.recipe, settings.plan.learning_rate) == (recipe, rate)


def test_small_images_are_not_blurred():
    assert [view.blur for view in RECIPES["small"]().views] == [0, 0]


def test_glyphs_are_never_flipped_nor_cropped():
    for view in RECIPES["glyphs"]().views:
        assert view.flip == 0
        assert isinstance(view.geometry, RandomAffine)


def test_textures_keep_color_and_orientation():
    for view in RECIPES["textures"]().views:
        assert (view.flip, view.grayscale, view.solarize, view.color_jitter.hue, view.color_jitter.saturation) == (
            0,
        ) * 5


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_to_the_end_and_says_so(recipe: str, photos: Path, tmp_path: Path):
    pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, epochs=1, recipe=recipe))
    run = Run(tmp_path / "run")
    assert run.read_encoder().provenance.recipe == recipe
    assert [each.epoch for each in run.read_metrics()] == [0, 1]
    assert (
        run.read_config()["settings"]["views"]
        == resolve(TrainConfig("conv4", 32, recipe=recipe), 108).to_json()["views"]
    )
