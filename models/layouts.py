"""How other projects' checkpoints name a backbone's tensors. A new layout is one entry of LAYOUTS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

# Words, in the name of a checkpoint's part, that tell a copy of the backbone from the one that learns.
COPIES = frozenset({"target", "momentum", "teacher", "ema"})


@dataclass(frozen=True)
class Layout:
    """`renamed`: what a tensor's name begins with here, by what it begins with there."""

    name: str
    renamed: Mapping[str, str]

    def rename(self, key: str) -> str:
        """A backbone's own name for a tensor, as this layout has it."""
        for theirs, ours in self.renamed.items():
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        return key


LAYOUTS = (
    Layout("its own names", {}),
    # nn.Sequential(*list(resnet.children())[:-1]), as in lightly's examples and much code that was copied.
    Layout(
        "a ResNet's children by number",
        {"0.": "conv1.", "1.": "bn1.", "4.": "layer1.", "5.": "layer2.", "6.": "layer3.", "7.": "layer4."},
    ),
)


def find_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Where each tensor of a backbone is in a checkpoint, behind whatever prefix it has there ("module.backbone.").

    The layout and prefix are those that leave the fewest tensors without a match. None where none has the first one.
    """
    first = next(iter(expected))
    found = []
    for layout in LAYOUTS:
        last = layout.rename(first)
        prefixes = [key.removesuffix(last) for key in state if key == last or key.endswith(f".{last}")]
        found += [
            {key: prefix + layout.rename(key) for key in expected} for prefix in prefixes if not _is_a_copy(prefix)
        ]
    return min(found, key=lambda names: sum(name not in state for name in names.values()), default=None)


def _is_a_copy(prefix: str) -> bool:
    return bool(COPIES & set(re.split(r"[._]", prefix)))
