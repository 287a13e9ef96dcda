import pytest
import torch
import torchvision.transforms.v2.functional as F
from byol_edge.train.coloring import blur, drop_color, jitter, solarize, turn_hue

# torchvision's luma has 0.2989 of red.
CLOSE = 0.03
IN_ORDER = [0, 1, 2, 3]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 12, 10), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize(
    ("colors", "by_torchvision"),
    [
        ((1.4, 1, 1, 0), lambda image: F.adjust_brightness(image, 1.4)),
        ((1, 0.6, 1, 0), lambda image: F.adjust_contrast(image, 0.6)),
        ((1, 1.8, 1, 0), lambda image: F.adjust_contrast(image, 1.8)),
        ((1, 1, 0.3, 0), lambda image: F.adjust_saturation(image, 0.3)),
        ((1, 1, 1, 0.1), lambda image: F.adjust_hue(image, 0.1)),
        ((1, 1, 1, -0.45), lambda image: F.adjust_hue(image, -0.45)),
    ],
)
def test_each_change_is_torchvisions(images: torch.Tensor, colors: tuple, by_torchvision):
    changed = jitter(images, torch.tensor([colors] * 4), torch.tensor([IN_ORDER] * 4))
    assert (changed - 255 * by_torchvision(images / 255)).abs().max() < CLOSE


def test_each_image_is_changed_by_its_own_numbers_in_its_own_order(images: torch.Tensor):
    by = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    colors = torch.tensor([[1.4, 0.6, 1.2, 0.1], [0.7, 1.3, 0.8, -0.1], [1.0, 1.0, 1.0, 0.0], [1.4, 1.4, 1.0, 0.05]])
    order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 0, 3, 2]])
    changed = jitter(images, colors, order)
    for image, each, numbers, view in zip(images, colors, order, changed, strict=True):
        expected = image / 255
        for number in numbers.tolist():
            expected = by[number](expected, float(each[number]))
        assert (view - 255 * expected).abs().max() < 3 * CLOSE


def test_a_jitter_leaves_its_argument_as_it_is(images: torch.Tensor):
    before = images.clone()
    jitter(images, torch.tensor([[1.2, 0.9, 1.1, 0.1]] * 4), torch.tensor([IN_ORDER] * 4))
    assert torch.equal(images, before)


def test_gray_has_no_hue_to_turn():
    gray = torch.tensor([0.0, 17.0, 255.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    torch.testing.assert_close(turn_hue(gray, torch.full((1, 1, 1, 1), 0.3)), gray)


def test_a_third_of_a_turn_moves_each_color_to_the_next(images: torch.Tensor):
    turned = turn_hue(images, torch.full((4, 1, 1, 1), 1 / 3))
    torch.testing.assert_close(turned, images.roll(1, 1), atol=1e-3, rtol=0)


def test_color_is_dropped_where_it_is_chosen(images: torch.Tensor):
    changed = drop_color(images, torch.tensor([True, False, True, False]))
    assert torch.equal(changed[1::2], images[1::2])
    assert (changed[::2] - 255 * F.rgb_to_grayscale(images[::2] / 255)).abs().max() < CLOSE


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.9])
def test_a_blur_is_torchvisions(sigma: float):
    images = torch.randint(0, 256, (1, 3, 24, 20), generator=torch.Generator().manual_seed(0)).float()
    expected = F.gaussian_blur(images, [25, 25], [sigma, sigma])
    assert (blur(images, torch.tensor([sigma])) - expected).abs().max() < 0.01


def test_no_sigma_is_no_blur(images: torch.Tensor):
    changed = blur(images, torch.tensor([0.0, 1.0, 0.0, 2.0]))
    assert torch.equal(changed[::2], images[::2])
    assert not torch.allclose(changed[1], images[1])


def test_solarizing_inverts_from_128():
    image = torch.tensor([0.0, 127.0, 128.0, 255.0]).view(1, 1, 1, 4).expand(2, 3, 1, 4)
    changed = solarize(image, torch.tensor([True, False]))
    assert changed[0, 0, 0].tolist() == [0, 127, 127, 0]
    assert torch.equal(changed[1], image[1])
