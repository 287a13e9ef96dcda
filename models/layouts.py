"""How other projects' checkpoints name a backbone's tensors. A new layout is one entry of LAYOUTS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

# Words, in the name of a checkpoint's part, that tell a copy of the backbone from the one that learns.
COPIES = frozenset({"target", "momentum", "teacher", "ema"})


@dataclass(frozen=True)
class Layout:
    """`rename`: from a backbone's own names for its tensors, in order, to this layout's, in the same order."""

    name: str
    rename: Callable[[Iterable[str]], list[str]]


def _by_beginnings(renamed: Mapping[str, str], keys: Iterable[str]) -> list[str]:
    """`renamed`: what a name begins with there, by what it begins with here."""
    found = []
    for key in keys:
        ours = next((each for each in renamed if key.startswith(each)), None)
        found.append(key if ours is None else renamed[ours] + key.removeprefix(ours))
    return found


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
    return _by_beginnings(renamed, keys)


LAYOUTS = (
    Layout("its own names", list),
    # nn.Sequential(*list(resnet.children())[:-1]), as in lightly's examples and much code that was copied.
    Layout(
        "a ResNet's children by number",
        partial(
            _by_beginnings,
            {"conv1.": "0.", "bn1.": "1.", "layer1.": "4.", "layer2.": "5.", "layer3.": "6.", "layer4.": "7."},
        ),
    ),
    Layout("lukemelas' EfficientNet-PyTorch", _as_lukemelas),
)


def find_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Where each tensor of a backbone is in a checkpoint, behind whatever prefix it has there ("module.backbone.").

    The layout and prefix are those that leave the fewest tensors without a match. None where none has the first one.
    """
    found = []
    for layout in LAYOUTS:
        theirs = layout.rename(expected)
        last = theirs[0]
        prefixes = [key.removesuffix(last) for key in state if key == last or key.endswith(f".{last}")]
        found += [
            {key: prefix + name for key, name in zip(expected, theirs, strict=True)}
            for prefix in prefixes
            if not _is_a_copy(prefix)
        ]
    return min(found, key=lambda names: sum(name not in state for name in names.values()), default=None)


def _is_a_copy(prefix: str) -> bool:
    return bool(COPIES & set(re.split(r"[._]", prefix)))
