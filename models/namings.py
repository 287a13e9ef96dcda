"""What the same backbone's tensors are called elsewhere. A new naming is one entry of NAMINGS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Naming:
    """`rename`: from a backbone's own names for its tensors, in order, to those that it has here, in the same order."""

    name: str
    rename: Callable[[Iterable[str]], list[str]]


def _rename(beginnings: Mapping[str, str], inside: Mapping[str, str], keys: Iterable[str]) -> list[str]:
    """`beginnings`: what a name begins with there, by what it begins with here; `inside`: likewise between two dots."""
    found = []
    for key in keys:
        ours = next((each for each in beginnings if key.startswith(each)), "")
        name = beginnings.get(ours, "") + key.removeprefix(ours)
        for part, theirs in inside.items():
            name = name.replace(f".{part}.", f".{theirs}.")
        found.append(name)
    return found


def _numbered(numbers: Iterable[int]) -> dict[str, str]:
    parts = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    return {f"{part}.": f"{number}." for part, number in zip(parts, numbers, strict=True)}


# Of nn.Sequential(*list(resnet.children())[:-1]), ReLU and max-pool are numbered, too.
CHILDREN = _numbered((0, 1, 4, 5, 6, 7))
# Of ResNets for CIFAR (kuangliu's pytorch-cifar, lightly's), ReLU is a function, and there is no max-pool.
CIFAR_CHILDREN = _numbered(range(6))
CIFAR = {"downsample": "shortcut"}


def _as_lukemelas(keys: Iterable[str]) -> list[str]:
    """timm's EfficientNet as lukemelas' EfficientNet-PyTorch, which numbers blocks through, and its norms by kind."""
    keys = list(keys)
    places = [match[0] for key in keys if (match := re.match(r"blocks\.\d+\.\d+\.", key))]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
    expanded = {match[0] for key in keys if (match := re.match(r"blocks\.\d+\.\d+\.(?=conv_pwl)", key))}
    inside = {"conv_dw.": "_depthwise_conv.", "se.conv_reduce.": "_se_reduce.", "se.conv_expand.": "_se_expand."}
    wide = {
        "conv_pw.": "_expand_conv.",
        "conv_pwl.": "_project_conv.",
        "bn1.": "_bn0.",
        "bn2.": "_bn1.",
        "bn3.": "_bn2.",
    }
    narrow = {"bn1.": "_bn1.", "conv_pw.": "_project_conv.", "bn2.": "_bn2."}
    renamed = {"conv_stem.": "_conv_stem.", "bn1.": "_bn0.", "conv_head.": "_conv_head.", "bn2.": "_bn1."}
    for place, number in numbers.items():
        block = inside | (wide if place in expanded else narrow)
        renamed |= {place + ours: f"_blocks.{number}.{theirs}" for ours, theirs in block.items()}
    return _rename(renamed, {}, keys)


NAMINGS = (
    Naming("its own names", list),
    Naming("a ResNet's children by number", partial(_rename, CHILDREN, {})),
    Naming("a CIFAR ResNet's names", partial(_rename, {}, CIFAR)),
    Naming("a CIFAR ResNet's children by number", partial(_rename, CIFAR_CHILDREN, CIFAR)),
    Naming("lukemelas' EfficientNet-PyTorch", _as_lukemelas),
)
