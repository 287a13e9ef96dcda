"""Two encoders as one: their vectors of unit length side by side, so that cosines are weighted means of theirs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..runtime.errors import RunError, brief
from ..runtime.fusion import FusionSpec
from .network import InferenceNetwork, embed_inputs, to_unit_length
from .tail import PREFIX
from .weights import build_network, read_state, read_tail, untrained_encoder

PARTS = ("first", "second")


class Fusion(nn.Module):
    """A backbone that is two: `[N, 3, H, W]`, normalized as for the first, → `[√w a, √(1−w) b]`, `[N, A + B]`.

    a and b are what the two networks give, of unit length: the cosine of two images is w cos_a + (1−w) cos_b.
    """

    def __init__(self, first: InferenceNetwork, second: InferenceNetwork, weight: float) -> None:
        super().__init__()
        self.first, self.second = first.backbone, second.backbone
        self.first_tail, self.second_tail = first.tail, second.tail
        self.second_input = _renormalize(first, second)
        self.lengths = weight**0.5, (1 - weight) ** 0.5

    def forward(self, inputs: Tensor) -> Tensor:
        first = to_unit_length(embed_inputs(self.first, self.first_tail, inputs))
        second = to_unit_length(embed_inputs(self.second, self.second_tail, self.second_input(inputs)))
        return torch.cat([self.lengths[0] * first, self.lengths[1] * second], 1)


class _Affine(nn.Module):
    """x → factor · x + offset, by channel. Neither is among the weights: they follow from what the parts say."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor + self.offset


def _renormalize(first: InferenceNetwork, second: InferenceNetwork) -> nn.Module:
    """From pixels as the first takes them to pixels as the second does."""
    if torch.equal(first.scale, second.scale) and torch.equal(first.shift, second.shift):
        return nn.Identity()
    factor = second.scale.double() / first.scale.double()
    offset = second.shift.double() - factor * first.shift.double()
    return _Affine(factor.float(), offset.float())


def list_backbones(network: InferenceNetwork) -> dict[str, nn.Module]:
    """What INT8 is for, by its name in the network: the backbone, or the two that are fused."""
    if isinstance(network.backbone, Fusion):
        return {f"backbone.{part}": network.backbone.get_submodule(part) for part in PARTS}
    return {"backbone": network.backbone}


def load_fusion(weights: bytes, spec: FusionSpec, name: str) -> InferenceNetwork:
    """The network that a fusion's weights are of, as serialize_weights wrote them. Raises RunError, naming the file."""
    state = read_state(weights, name)
    parts = [_take(state, part) for part in PARTS]
    tail = {key: tensor for key, tensor in state.items() if key.startswith(PREFIX)}
    if sum(map(len, (*parts, tail))) != len(state):
        raise RunError(f"{name}: holds tensors of neither of the two encoders that are fused")
    first, second = (
        build_network(part, each, name) for part, each in zip(parts, (spec.first, spec.second), strict=True)
    )
    network = InferenceNetwork(Fusion(first, second, spec.weight), spec.preprocessing, read_tail(tail, name))
    side = spec.preprocessing.image_size
    try:
        with torch.no_grad():
            size = network(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[1]
    except RuntimeError as error:
        raise RunError(f"{name}: its tensors do not fit together ({brief(error)})") from error
    if size != spec.embedding_size:
        raise RunError(f"{name}: gives vectors of {size} numbers, not of {spec.embedding_size}")
    return network


def build_untrained(spec: FusionSpec, seed: int) -> InferenceNetwork:
    """The same two architectures with weights that a seed draws, others for each, nothing behind them."""
    first, second = (
        InferenceNetwork(untrained_encoder(each, seed + number), each.preprocessing)
        for number, each in enumerate((spec.first, spec.second))
    )
    return InferenceNetwork(Fusion(first, second, spec.weight), spec.preprocessing)


def _take(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """One part's tensors, under the names that they have in its own file."""
    prefixes = {f"{part}.": "", f"{part}_{PREFIX}": PREFIX}
    return {
        own + key.removeprefix(prefix): tensor
        for key, tensor in state.items()
        for prefix, own in prefixes.items()
        if key.startswith(prefix)
    }
