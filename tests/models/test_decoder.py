"""The decoder: images of every side, and what it can learn."""

import pytest
import torch
from byol_edge.models.decoder import Decoder


@pytest.mark.parametrize("side", [16, 32, 50, 224])
def test_images_have_the_side_that_was_asked_for(side: int):
    assert Decoder(8, side).eval()(torch.randn(2, 8)).shape == (2, 3, side, side)


def test_it_learns_which_image_belongs_to_which_vector():
    torch.manual_seed(0)
    vectors, images = torch.randn(8, 16), torch.rand(8, 3, 16, 16)
    decoder = Decoder(16, 16)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        (decoder(vectors) - images).square().mean().backward()
        optimizer.step()
    constant = (images - images.mean(0)).square().mean()
    assert (decoder(vectors) - images).square().mean() < 0.2 * constant
