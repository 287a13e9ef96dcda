"""The mathematics of the autoencoder, against values worked out by hand."""

import pytest
import torch
from byol_edge.models.autoencoder import Autoencoder, AutoencoderConfig, explained
from byol_edge.models.objective import Heads, Views
from torch import Tensor, nn


def small() -> Autoencoder:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 8))
    return AutoencoderConfig().build(backbone, 8, 8)


def test_the_share_explained_of_an_example_worked_out_by_hand():
    # Two images of one pixel, 0 and 4 in each channel: their mean is 2, their variance 4. An error of 1 leaves 3/4.
    images = torch.tensor([0.0, 4.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert explained(torch.tensor(1.0), images) == 0.75
    assert explained(torch.tensor(0.0), images) == 1
    assert explained(torch.tensor(4.0), images) == 0  # the mean image, for both
    assert explained(torch.tensor(0.5), images[:1]) == 1  # of one image, nothing can be told


def test_each_view_is_compared_with_itself():
    model = small()

    class Sure(nn.Module):
        """Decodes the first view without an error, the second one by 1 too bright."""

        def forward(self, vectors: Tensor) -> Tensor:
            return torch.cat([first, second + 1])

    first, second = torch.randn(2, 5, 3, 8, 8)
    model.decoder = Sure()  # type: ignore[assignment]
    assert model(Views(first, second)).loss == pytest.approx(0.5)


def test_backbone_and_decoder_learn():
    model = small()
    outcome = model(Views(*torch.randn(2, 6, 3, 8, 8)))
    outcome.loss.backward()
    assert all(each.grad is not None for each in model.parameters())
    assert outcome.diagnostics.keys() == {"explained"}
    assert model.after_step(0.5) == {}


def test_it_learns_to_decode_a_handful_of_images():
    model, images = small(), torch.rand(6, 3, 8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        model(Views(images, images)).loss.backward()
        optimizer.step()
    assert model(Views(images, images)).diagnostics["explained"] > 0.8


def test_there_is_nothing_to_set():
    assert AutoencoderConfig().complete(Heads(), 10) == AutoencoderConfig()
