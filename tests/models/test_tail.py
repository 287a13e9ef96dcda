import numpy as np
import torch
from byol_edge.models.byol import mlp_head
from byol_edge.models.tail import build_tail, find_components, load_tail, read_layers, shorten
from torch import nn


def projector(random: torch.Generator) -> torch.nn.Sequential:
    head = mlp_head(8, 16, 6)
    norm = head[1]
    assert isinstance(norm, torch.nn.BatchNorm1d)
    norm.running_mean.normal_(generator=random)  # type: ignore[union-attr]
    norm.running_var.uniform_(0.5, 2, generator=random)  # type: ignore[union-attr]
    with torch.no_grad():
        norm.weight.normal_(generator=random)
        norm.bias.normal_(generator=random)
    return head.eval()


def test_a_folded_projector_computes_what_the_projector_does():
    head = projector(torch.Generator().manual_seed(0))
    embeddings = torch.randn(20, 8)
    tail = build_tail(read_layers(head.state_dict()))
    assert [type(module).__name__ for module in tail] == ["Linear", "ReLU", "Linear"]
    torch.testing.assert_close(tail(embeddings), head(embeddings), atol=1e-5, rtol=1e-5)


def test_components_keep_what_lies_in_a_subspace(random: np.random.Generator):
    basis = np.linalg.qr(random.normal(size=(8, 3)))[0].T
    embeddings = (random.normal(size=(50, 3)) @ basis).astype(np.float32)
    components = find_components(embeddings, 3)
    assert components.shape == (3, 8)
    np.testing.assert_allclose(components @ components.T, np.eye(3), atol=1e-6)
    projected = build_tail(shorten([], components))(torch.from_numpy(embeddings)).detach().numpy()
    np.testing.assert_allclose(projected @ projected.T, embeddings @ embeddings.T, atol=1e-4)
    assert torch.equal(find_components(-embeddings, 3), components)  # whatever sign the solver chose


def test_shorter_projections_are_the_projections_projected(random: np.random.Generator):
    layers = read_layers(projector(torch.Generator().manual_seed(0)).state_dict())
    embeddings = torch.randn(20, 8)
    whole = build_tail(layers)(embeddings)
    components = find_components(whole.detach().numpy(), 4)
    shorter = build_tail(shorten(layers, components))
    assert len(shorter) == 3
    torch.testing.assert_close(shorter(embeddings), whole @ components.T, atol=1e-5, rtol=1e-5)


def test_a_tail_is_found_among_weights_and_without_one_nothing_follows():
    tail = build_tail(read_layers(projector(torch.Generator().manual_seed(0)).state_dict()))
    state = {f"tail.{name}": tensor for name, tensor in tail.state_dict().items()}
    embeddings = torch.randn(3, 8)
    assert torch.equal(load_tail({"conv1.weight": torch.zeros(1), **state})(embeddings), tail(embeddings))
    assert torch.equal(load_tail({})(embeddings), embeddings)


def test_a_projector_is_read_whatever_its_layers_are_called():
    torch.manual_seed(0)
    head = mlp_head(8, 16, 4).eval()
    expected = read_layers(head.state_dict())
    for names in (("fc0", "bn0", "fc1"), ("l1", "bn1", "l2")):
        renamed, places = {}, dict(zip("013", names, strict=True))
        for key, tensor in reversed(head.state_dict().items()):
            number, _, kind = key.partition(".")
            renamed[f"{places[number]}.{kind}"] = tensor
        found = read_layers(renamed)
        pairs = [pair for one, other in zip(found, expected, strict=True) for pair in zip(one, other, strict=True)]
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_projector_with_anything_else_in_it_is_not_read():
    linear = {"0.weight": torch.ones(3, 4), "0.bias": torch.zeros(3)}
    assert len(read_layers(linear)) == 1
    for other in (
        {"1.weight": torch.ones(3, 3, 1, 1)},
        {"1.weight_g": torch.ones(3)},
        {"2.0.weight": torch.ones(3, 3)},
    ):
        assert read_layers({**linear, **other}) == []  # type: ignore[dict-item]
    norm = nn.BatchNorm1d(4)
    assert read_layers({f"0.{key}": value for key, value in norm.state_dict().items()}) == []
