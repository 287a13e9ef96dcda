"""Views made on the device against those of the workers, from the same numbers. CPU tensors: the code is the same."""

import numpy as np
import pytest
import torch
from byol_edge.runtime import Preprocessing
from byol_edge.train.device_rendering import DeviceRenderer
from byol_edge.train.pictures import place, read_picture
from byol_edge.train.recipe import RECIPES
from byol_edge.train.rendering import Renderer, WorkerRenderer
from byol_edge.train.views import RandomCrop, View, sample
from PIL import Image

SIDE = 32
CPU = torch.device("cpu")
SIZES = ((48, 64), (64, 33), (20, 32), (64, 64))


def draw_images(random: np.random.Generator) -> list[Image.Image]:
    """Smooth ones of several shapes: noise of 8 px, enlarged."""
    noise = [Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(24)]
    return [image.resize(SIZES[number % 4], Image.Resampling.BICUBIC) for number, image in enumerate(noise)]


def draw(renderer: Renderer, images: list[Image.Image], views: tuple[View, View], fit: str) -> torch.Tensor:
    """Both views of all images, float `[2, N, SIDE, SIDE, 3]`."""
    loaded = []
    for row, image in enumerate(images):
        picture, rng = read_picture(image, Preprocessing(SIDE, fit=fit)), np.random.default_rng(row)
        one, other = (place(sample(view, picture.size, fit, rng), picture, fit) for view in views)
        loaded.append(renderer.load(row, picture.pixels, (one, other)))
    return torch.stack(renderer.finish(renderer.collate(loaded), CPU)).float()


def differences(images: list[Image.Image], views: tuple[View, View], fit: str = "crop") -> np.ndarray:
    preprocessing = Preprocessing(SIDE, fit=fit)
    one, other = (draw(make(preprocessing), images, views, fit) for make in (WorkerRenderer, DeviceRenderer))
    return (one - other).abs().numpy()


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipes_views_are_those_of_the_workers(random: np.random.Generator, recipe: str, fit: str):
    differs = differences(draw_images(random), RECIPES[recipe]().views, fit)
    assert np.percentile(differs, 99) <= 3
    assert differs.mean() < 1


def test_crops_and_flips_are_within_a_level(random: np.random.Generator):
    view = View(RandomCrop((0.1, 1.0)), flip=0.5, jitter=0, grayscale=0)
    assert differences(draw_images(random), (view, view)).max() <= 1.5


def test_views_do_not_depend_on_the_rest_of_the_batch(random: np.random.Generator):
    images, views = draw_images(random), RECIPES["photographs"]().views
    renderer = DeviceRenderer(Preprocessing(SIDE))
    whole, part = draw(renderer, images, views, "crop"), draw(renderer, images[:3], views, "crop")
    torch.testing.assert_close(whole[:, :3], part, atol=0.01, rtol=0)
