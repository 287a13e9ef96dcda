import numpy as np
import pytest
import torch
from byol_edge.train.resampling import axis_weights, find_background, resample, transform
from PIL import Image

# Pillow rounds after each of two passes, and its weights; a view of 8 bit can be one level off.
LEVEL = 1.2


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def draw_image(random: np.random.Generator, width: int, height: int, contrast: bool) -> Image.Image:
    """Noise; with `contrast`, of nothing but black and white, where a cubic overshoots most."""
    pixels = (
        random.integers(0, 2, (height, width, 3)) * 255 if contrast else random.integers(0, 256, (height, width, 3))
    )
    return Image.fromarray(pixels.astype(np.uint8))


def crop(image: Image.Image, box: tuple[float, float, float, float], side: int, canvas: int = 0) -> torch.Tensor:
    """A crop of an image that lies in the corner of something larger."""
    pixels = torch.full((1, 3, image.height + canvas, image.width + canvas), 99.0)
    pixels[:, :, : image.height, : image.width] = tensor(image)
    left, top, right, bottom, width, height = torch.tensor([*box, image.width, image.height])[:, None]
    rows = axis_weights(top, bottom, height, side, pixels.shape[2])
    return resample(pixels, rows, axis_weights(left, right, width, side, pixels.shape[3]))


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 50, 40), (3.3, 4.7, 31.1, 39.9), (10, 10, 14.5, 15.5)])
@pytest.mark.parametrize("side", [8, 24, 64])
def test_a_crop_is_pillows(random: np.random.Generator, box: tuple, side: int, contrast: bool):
    image = draw_image(random, 50, 40, contrast)
    expected = tensor(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
    assert (crop(image, box, side) - expected).abs().max() < LEVEL


def test_what_lies_beside_an_image_does_not_matter(random: np.random.Generator):
    image, box = draw_image(random, 30, 20, False), (2.5, 1.5, 30, 20)
    torch.testing.assert_close(crop(image, box, 16), crop(image, box, 16, canvas=9))


def test_a_box_that_ends_before_it_begins_is_mirrored(random: np.random.Generator):
    image = draw_image(random, 30, 20, False)
    plain, mirrored = crop(image, (5, 3, 25, 18), 16), crop(image, (25, 3, 5, 18), 16)
    torch.testing.assert_close(mirrored, plain.flip(3))


def test_each_image_of_a_batch_has_its_own_crop(random: np.random.Generator):
    images = [draw_image(random, 30, 20, False) for _ in range(2)]
    boxes = [(0, 0, 30, 20), (4, 5, 20, 17)]
    ends = torch.tensor(boxes, dtype=torch.float32).T
    sizes = torch.tensor([[20, 30]] * 2).T
    rows, columns = (axis_weights(ends[at], ends[at + 2], sizes[1 - at], 12, (30, 20)[at]) for at in (1, 0))
    together = resample(torch.cat([tensor(image) for image in images]), rows, columns)
    for view, image, box in zip(together, images, boxes, strict=True):
        torch.testing.assert_close(view[None], crop(image, box, 12), atol=1e-3, rtol=0)


def test_a_transform_is_pillows(random: np.random.Generator):
    side, (a, b, c, d, e, f) = 24, (0.9, -0.2, 0.05, 0.25, 1.1, -0.03)
    image = draw_image(random, side, side, False)
    middle = side / 2
    in_pixels = (a, b, side * c + middle - (a + b) * middle, d, e, side * f + middle - (d + e) * middle)
    fill = tuple(int(value) for value in find_background(tensor(image))[0])
    method, cubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    expected = tensor(image.transform(image.size, method, in_pixels, cubic, fillcolor=fill))
    assert (transform(tensor(image), torch.tensor([[a, b, c, d, e, f]])) - expected).abs().max() < LEVEL


def test_the_background_is_the_median_of_the_border():
    image = torch.full((1, 3, 8, 8), 200.0)
    image[:, :, 2:6, 2:6] = 0
    image[:, :, 0, :3] = 50
    assert find_background(image).tolist() == [[200, 200, 200]]
