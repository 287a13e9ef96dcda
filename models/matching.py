"""A backbone beside a network in a checkpoint: what each tensor is called there, and which do not fit."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .backbones import SMALL_STEM_KEY, build_backbone, find_classifier, resolve_stem
from .namings import NAMINGS

State = Mapping[str, Tensor]

# In which a network without a side of its own is built for its shapes.
SIDE = 224
# What initializers call on weights, in place: none of these changes a shape.
INITIALIZERS = {Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_}
# Tensors that an error lists.
LISTED = 3
# Names that are left over, among which the nearest is looked for.
MOST_COMPARED = 500
# Only training counts batches, and old files lack it.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Part:
    """A network within a checkpoint: its tensors without what their names begin with there."""

    place: str
    state: State


@dataclass(frozen=True)
class Match:
    """A backbone beside a part of a checkpoint: what each of its tensors is called there, and what does not fit."""

    backbone: str
    stem: str
    names: Mapping[str, str]
    image_layer: str | None
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def differences(self) -> int:
        return len(self.missing) + len(self.left_over) + len(self.misshapen)


def match_namings(state: State, name: str, stem: str, small_stem: str) -> Iterator[Match]:
    """The backbone by each naming that any of its tensors is found by.

    `stem`, `small_stem`: what a ResNet's 7×7 stem is in this checkpoint, and a 3×3 one.
    """
    side = find_side(name, state)
    expected = build_empty(name, side).state_dict()
    classifier = find_classifier(name)
    for naming in NAMINGS:
        names = naming.rename(expected)
        if not any(each in state for each in names):
            continue
        its_stem = "standard"
        if _is_resnet(expected):
            its_stem = small_stem if _has_small_stem(state.get(names[0])) else stem
        shaped = expected if its_stem == "standard" else build_empty(name, side, its_stem).state_dict()
        yield _match(state, shaped, names, name, its_stem, classifier)


def find_image_layer(expected: State) -> str | None:
    """The name of the layer that takes the image: the first convolution."""
    return next((key for key, tensor in expected.items() if tensor.ndim == 4), None)


def _is_resnet(expected: State) -> bool:
    first = expected.get(SMALL_STEM_KEY)
    return first is not None and first.shape[-1] == 7


def _has_small_stem(first: Tensor | None) -> bool:
    return first is not None and first.ndim == 4 and first.shape[-1] == 3


def _match(state: State, expected: State, names: list[str], backbone: str, stem: str, classifier: str) -> Match:
    theirs = dict(zip(expected, names, strict=True))
    image_layer = find_image_layer(expected)
    missing = [name for name in names if name not in state and not name.endswith(COUNTER)]
    own = {name.split(".")[0] for name in names}
    known = set(names)
    left_over = [
        key for key in state if key not in known and key.split(".")[0] in own and not key.startswith(f"{classifier}.")
    ]
    misshapen = [
        f"{theirs[key]} is {_describe(state[theirs[key]])}, not {list(tensor.shape)}"
        for key, tensor in expected.items()
        if theirs[key] in state and not _fits(state[theirs[key]], tensor, key == image_layer)
    ]
    return Match(backbone, stem, theirs, image_layer, tuple(missing), tuple(left_over), tuple(misshapen))


def _fits(found: Tensor, expected: Tensor, takes_image: bool) -> bool:
    """Whether the shapes are the same, but for the channels of images in a first convolution."""
    if found.layout != torch.strided or found.is_meta:
        return False
    if takes_image and expected.ndim == 4 and found.ndim == 4:
        return found.shape[0] == expected.shape[0] and found.shape[2:] == expected.shape[2:]
    return found.shape == expected.shape


def _describe(tensor: Tensor) -> str:
    kind = "sparse " if tensor.layout != torch.strided else "without numbers, " if tensor.is_meta else ""
    return f"{kind}{list(tensor.shape)}"


def tell_differences(match: Match, part: Part, file: str) -> str:
    """In one line: how many tensors are missing, left over and of another shape, the first of them side by side."""
    nearest = difflib.get_close_matches
    pairs = []
    for name in match.missing[:LISTED]:
        near = nearest(name, match.left_over[:MOST_COMPARED], n=1, cutoff=0.6)
        pairs.append(f"{part.place}{name}" + (f" (there is {part.place}{near[0]})" if near else ""))
    told = [
        _count(len(match.missing), "missing", pairs),
        _count(len(match.misshapen), "of another shape", [f"{part.place}{each}" for each in match.misshapen[:LISTED]]),
        _count(len(match.left_over), "left over", [f"{part.place}{each}" for each in match.left_over[:LISTED]]),
    ]
    return f"{file}: not the weights of {match.backbone}, the nearest: " + "; ".join(each for each in told if each)


def _count(number: int, what: str, listed: list[str]) -> str:
    return f"{number} {what} ({', '.join(listed)}{', …' if number > len(listed) else ''})" if number else ""


def find_side(backbone: str, state: State) -> int | None:
    """The side of the images, of networks that take one side only: by their embeddings of positions, else their own."""
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    if config is None or not config.fixed_input_size:
        return None
    positions, patches = state.get("pos_embed"), state.get("patch_embed.proj.weight")
    if positions is not None and patches is not None and positions.ndim == 3 and patches.ndim == 4:
        for tokens in (positions.shape[1] - 1, positions.shape[1]):  # with one for the class, or without
            if (across := math.isqrt(tokens)) ** 2 == tokens:
                return across * patches.shape[-1]
    return config.input_size[-1]


class _SkipInit(TorchFunctionMode):
    """Skips the initialization of meta tensors, which takes most of the time that building a transformer does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func in INITIALIZERS and args[0].is_meta else func(*args, **(kwargs or {}))


def build_empty(name: str, side: int | None, stem: str = "standard") -> nn.Module:
    with torch.device("meta"), _SkipInit():
        return build_backbone(name, side or SIDE, resolve_stem(name, side or SIDE, stem))
