"""PSNR and SSIM: known values, and what equal images give."""

import numpy as np
import pytest
from byol_edge.decoding.likeness import LEAST_ERROR, squared_errors, structural_similarity, to_decibels
from byol_edge.runtime.preprocessing import Pixels


def draw_pair() -> tuple[Pixels, Pixels]:
    y, x = np.mgrid[0:32, 0:32]
    image = np.stack([128 + 100 * np.sin(x / 4), 128 + 100 * np.cos(y / 5), 4.0 * (x + y)], 2)
    image = image.clip(0, 255).astype(np.uint8)
    other = (image * 0.8 + np.arange(32)[:, None, None]).clip(0, 255).astype(np.uint8)
    return image[None], other[None]


def test_values_are_those_of_scikit_image():
    """Version 0.26: peak_signal_noise_ratio, and structural_similarity with gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1.0, channel_axis=2."""
    image, other = draw_pair()
    assert to_decibels(squared_errors(image, other)) == pytest.approx([22.856115783370964])
    assert structural_similarity(image, other) == pytest.approx([0.971810859746382])


def test_flat_images_differ_by_their_means_alone():
    black, gray = (np.full((1, 20, 20, 3), value, np.uint8) for value in (0, 51))
    assert to_decibels(squared_errors(black, gray)) == pytest.approx([-10 * np.log10(0.2**2)])
    assert structural_similarity(black, gray) == pytest.approx([0.01**2 / (0.2**2 + 0.01**2)])


@pytest.mark.parametrize("side", [1, 8, 11, 40])
def test_equal_images_are_as_close_as_bytes_can_be(random: np.random.Generator, side: int):
    images = random.integers(0, 256, (300, side, side, 3), np.uint8)
    assert squared_errors(images, images) == pytest.approx(np.zeros(300))
    assert to_decibels(squared_errors(images, images)) == pytest.approx(np.full(300, -10 * np.log10(LEAST_ERROR)))
    assert structural_similarity(images, images) == pytest.approx(np.ones(300))


def test_each_image_has_its_own_value(random: np.random.Generator):
    images = random.integers(0, 200, (3, 16, 16, 3), np.uint8)
    others = images + np.array([0, 10, 50], np.uint8)[:, None, None, None]
    assert np.all(np.diff(squared_errors(images, others)) > 0)
    assert np.all(np.diff(structural_similarity(images, others)) < 0)
