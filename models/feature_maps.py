"""A backbone's feature maps: which of its modules give one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..runtime.errors import UsageError
from ..runtime.feature_maps import MOST_LENGTH, MOST_MAPS, MOST_NAME, RESERVED, FeatureMap
from .fusion import list_backbones
from .network import InferenceNetwork, map_pixels
from .tracing import merge_branches

# Images that a network is tried on: a map has to have a row for each.
TRIED = 2


def choose_maps(network: InferenceNetwork, names: Sequence[str]) -> tuple[FeatureMap, ...]:
    """The feature maps that these modules give: names as in `backbone.named_modules()`.

    Raises UsageError where one is no module's, or gives no map; it lists those that are likely to be meant.
    """
    if not names:
        return ()
    backbones = list_backbones(network).values()
    if any(getattr(each, "output_fmt", "NCHW") == "NHWC" for each in backbones):  # as timm calls it
        raise UsageError("{features}: this backbone's maps have their channels last", features=",".join(names))
    calls = _try_out(network)
    maps = {name: each for name, (each, *more) in calls.items() if isinstance(each, FeatureMap) and not more}
    merged = _try_out(merge_branches(network))
    for name in names:
        reason = ""
        if name in RESERVED or not name.isprintable() or len(name) > MOST_NAME:
            reason = "cannot be the name of an output"
        elif name not in dict(network.backbone.named_modules()) or not name:
            reason = "is no module of this backbone"
        elif name not in calls:
            reason = "is not run for an embedding"
        elif len(calls[name]) > 1:
            reason = f"runs {len(calls[name])} times for an image"
        elif name not in maps:
            reason = f"gives {calls[name][0]}, not a map [N, C, H, W]"
        elif merged.get(name) != calls[name]:
            reason = "is merged with what runs beside it"
        if reason:
            text = f"{{features}}: {name[:80]!r} {reason}; {_suggest(network, maps)}"
            raise UsageError(text, features=",".join(names))
    _refuse_copies(network, names)
    return tuple(maps[name] for name in names)


@torch.no_grad()
def _try_out(network: InferenceNetwork) -> dict[str, list[Any]]:
    """What each module of the backbone gives, by its name, in the order in which they end: a FeatureMap for each call
    that gives a map, else in words what it is."""
    calls: dict[str, list[Any]] = {}

    def note(name: str, output: object) -> None:
        calls.setdefault(name, []).append(_describe(name, output))

    hooks = [
        module.register_forward_hook(lambda *call, name=name: note(name, call[2]))
        for name, module in network.backbone.named_modules()
        if name
    ]
    try:
        network(_draw(network))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _draw(network: InferenceNetwork) -> Tensor:
    side = network.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (TRIED, side, side, 3), generator=generator, dtype=torch.uint8)


def _describe(name: str, output: object) -> FeatureMap | str:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    if output.dtype != torch.float32 or output.ndim != 4 or len(output) != TRIED or max(output.shape) > MOST_LENGTH:
        return f"{str(output.dtype).removeprefix('torch.')} {['N', *output.shape[1:]]}".replace("'", "")
    return FeatureMap(name, *output.shape[1:])


def _suggest(network: InferenceNetwork, maps: dict[str, FeatureMap]) -> str:
    """The last module at each size of map, which is where a stage of a network ends."""
    stages: list[FeatureMap] = []
    for backbone in list_backbones(network):
        prefix = f"{backbone}.".removeprefix("backbone.")
        its = [each for each in maps.values() if each.name.startswith(prefix)]
        outer = [each for each in its if each.name.removeprefix(prefix).count(".") <= 1]  # "blocks.3", not its parts
        ends = {(each.height, each.width): each for each in outer or its if each.height * each.width > 1}
        stages += sorted(ends.values(), key=lambda each: -each.height * each.width)
    return f"its stages end in {', '.join(map(str, stages))}" if stages else "it has none that gives a map"


def _refuse_copies(network: InferenceNetwork, names: Sequence[str]) -> None:
    """A container gives what its last module gives; as two outputs, it would only take time."""
    if len(names) > MOST_MAPS:
        raise UsageError(f"{{features}}: {MOST_MAPS} maps are the most", features=",".join(names))
    maps = map_pixels(network, _draw(network).numpy(), names)
    for place, name in enumerate(names):
        for other in names[:place]:
            if np.array_equal(maps[name], maps[other]):
                text = f"{{features}}: {name} gives the same map as {other}; name one of them"
                raise UsageError(text, features=",".join(names))
