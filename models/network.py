"""The network that is exported: uint8 pixels in, embeddings of unit length out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.feature_maps import Maps
from ..runtime.preprocessing import Pixels, Preprocessing


class InferenceNetwork(nn.Module):
    """A backbone with the input and output steps that every variant has in its graph, and PyTorch's reference too.

    `tail`: what follows the backbone, if anything does (see models/tail.py).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing, tail: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.tail = tail or nn.Sequential()
        self.image_size = preprocessing.image_size
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        # (pixel / 255 − mean) / std as one product and one sum
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.eval()

    def inputs(self, images: Tensor) -> Tensor:
        """`[N, H, W, 3]`, uint8 or float to 255 → normalized float32 `[N, 3, H, W]`: what the backbone takes."""
        return images.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def unscaled(self, images: Tensor) -> Tensor:
        """uint8 `[N, H, W, 3]` → float32 `[N, D]`: embeddings before they are brought to unit length."""
        return embed_inputs(self.backbone, self.tail, self.inputs(images))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 `[N, H, W, 3]` → float32 `[N, D]`, rows of unit length (a row of zeros stays zero)."""
        return to_unit_length(self.unscaled(images))


def embed_inputs(backbone: nn.Module, tail: nn.Module, inputs: Tensor) -> Tensor:
    """Normalized images `[N, 3, H, W]` → `[N, D]`, of any length."""
    embeddings = backbone(inputs)
    return tail(embeddings if embeddings.ndim == 2 else embeddings.flatten(1))  # pooled, but [N, D, 1, 1]


def to_unit_length(embeddings: Tensor) -> Tensor:
    """Rows of unit length, `[N, D]`; a row of zeros stays zero."""
    return embeddings / embeddings.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)


@contextmanager
def inference_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network, all its norms included, into eval mode for the block, and each module back into its own after."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@torch.no_grad()
def embed_pixels(network: nn.Module, pixels: Pixels, batch_size: int = 64) -> NDArray[np.float32]:
    """Embeddings `[N, D]` of prepared images uint8 `[N, H, W, 3]`, by PyTorch, in batches, where the network lies."""
    device = next(network.buffers()).device
    whole = np.ascontiguousarray(pixels)
    batches = [torch.from_numpy(whole[start : start + batch_size]) for start in range(0, len(whole), batch_size)]
    return np.concatenate([network(batch.to(device)).float().cpu().numpy() for batch in batches])


@contextmanager
def giving_maps(network: InferenceNetwork, names: Sequence[str]) -> Iterator[None]:
    """Within the block, the network gives `(embeddings, map, map, …)`, a map for each of these modules of its backbone.

    Without names, it gives its embeddings alone, as ever.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        maps[name] = output.clone()  # what comes next may work in place

    hooks = [
        network.backbone.get_submodule(name).register_forward_hook(lambda *call, name=name: keep(name, call[2]))
        for name in names
    ]
    if names:
        hooks.append(network.register_forward_hook(lambda *call: (call[2], *(maps[name] for name in names))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def map_pixels(network: InferenceNetwork, pixels: Pixels, names: Sequence[str], batch_size: int = 8) -> Maps:
    """Feature maps `[N, C, H, W]` of prepared images uint8 `[N, H, W, 3]`, by PyTorch, by module."""
    if not names:
        return {}
    whole = torch.from_numpy(np.ascontiguousarray(pixels))
    with giving_maps(network, names):
        outputs = [network(batch)[1:] for batch in whole.split(batch_size)]
    return {name: torch.cat(maps).float().numpy() for name, maps in zip(names, zip(*outputs, strict=True), strict=True)}
