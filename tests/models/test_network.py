import numpy as np
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.runtime import Preprocessing


def test_inputs_are_scaled_and_normalized_per_channel():
    preprocessing = Preprocessing(8)
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    inputs = InferenceNetwork(torch.nn.Identity(), preprocessing).inputs(pixels)
    expected = (pixels.numpy() / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(inputs.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_embeddings_are_of_unit_length_and_do_not_depend_on_the_batch(random: np.random.Generator):
    network = InferenceNetwork(build_backbone("conv4", 32), Preprocessing(32))
    pixels = random.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    vectors = embed_pixels(network, pixels)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embed_pixels(network, pixels, batch_size=1), vectors, atol=1e-6)


def test_unscaled_embeddings_are_the_same_but_for_their_length(random: np.random.Generator):
    network = InferenceNetwork(build_backbone("conv4", 32), Preprocessing(32), torch.nn.Linear(256, 8))
    pixels = torch.from_numpy(random.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    with torch.no_grad():
        unscaled = network.unscaled(pixels)
        assert torch.equal(unscaled, network.tail(network.backbone(network.inputs(pixels))))
        torch.testing.assert_close(torch.nn.functional.normalize(unscaled), network(pixels))


def test_a_network_that_puts_out_zero_gives_zero_not_nan():
    class Zero(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.mean((2, 3)) * 0

    vectors = embed_pixels(InferenceNetwork(Zero(), Preprocessing(8)), np.zeros((1, 8, 8, 3), np.uint8))
    assert (vectors == 0).all()
