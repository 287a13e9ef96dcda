"""Where other projects keep BYOL's parts, and its relatives', in a checkpoint. A new layout is one entry of LAYOUTS."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Parts of names that only wrap a network, wherever they stand: DDP, torch.compile, Lightning, a training loop.
WRAPPERS = frozenset({"module", "_orig_mod", "model", "learner", "state_dict"})
# Words, in the name of a part, that tell a copy of the backbone from the one that is wanted. Lightning keeps weights
# that it averaged as the network's own, and what they are averages of as "current".
COPIES = frozenset({"target", "momentum", "teacher", "ema", "current"})
# Before the names of what was in a pickle of haiku's.
HAIKU = "haiku."


@dataclass(frozen=True)
class Layout:
    """What the names of tensors begin with, wrappers left out, all behind one prefix.

    `online`: the backbone that learns; `target`: its moving average; `projector`, `target_projector`: what follows
    each in training, linear layers with norms and ReLU. Empty where there is none. `marks`: further beginnings of
    which each is there: by them and `online` the layout is recognized. `stem`: which one a ResNet's 7×7 stem is;
    `small_stem`: its 3×3 one.
    """

    project: str
    online: str
    target: str = ""
    projector: str = ""
    target_projector: str = ""
    marks: tuple[str, ...] = ()
    stem: str = "standard"
    small_stem: str = "small"


# The first whose parts are all there.
LAYOUTS = (
    Layout(
        "stable-pretraining",
        online="backbone.student.",
        target="backbone.teacher.",
        projector="projector.student.",
        target_projector="projector.teacher.",
        marks=("backbone.teacher.",),
    ),
    Layout(
        "lightly's examples",
        online="backbone.",
        target="backbone_momentum.",
        projector="projection_head.layers.",
        target_projector="projection_head_momentum.layers.",
        marks=("backbone_momentum.", "projection_head.layers."),
    ),
    Layout(
        "lightly's benchmarks",
        online="backbone.",
        target="teacher_backbone.",
        projector="projection_head.layers.",
        target_projector="teacher_projection_head.layers.",
        marks=("teacher_backbone.", "projection_head.layers."),
    ),
    Layout("lightly", online="backbone.", projector="projection_head.layers.", marks=("projection_head.layers.",)),
    Layout(
        "solo-learn",
        online="backbone.",
        target="momentum_backbone.",
        projector="projector.",
        target_projector="momentum_projector.",
        marks=("momentum_backbone.", "projector."),
        small_stem="small-padding-2",
    ),
    Layout(
        "solo-learn, 2021",
        online="encoder.",
        target="momentum_encoder.",
        projector="projector.",
        target_projector="momentum_projector.",
        marks=("momentum_encoder.", "projector."),
        small_stem="small-padding-2",
    ),
    Layout(
        "lucidrains' byol-pytorch",
        online="online_encoder.net.",
        target="target_encoder.net.",
        projector="online_encoder.projector.",
        target_projector="target_encoder.projector.",
    ),
    Layout(
        "sthalles' PyTorch-BYOL",
        online="online_network_state_dict.encoder.",
        target="target_network_state_dict.encoder.",
        projector="online_network_state_dict.projetion.net.",
        target_projector="target_network_state_dict.projetion.net.",
    ),
    Layout(
        "lightning-bolts",
        online="online_network.encoder.",
        target="target_network.encoder.",
        projector="online_network.projector.",
        target_projector="target_network.projector.",
        marks=("online_network.projector.",),
    ),
    Layout(
        "yaox12's BYOL-PyTorch",
        online="online_network.encoder.",
        target="target_network.encoder.",
        projector="online_network.projetion.",
        target_projector="target_network.projetion.",
    ),
    Layout(
        "EMAN",
        online="online_net.backbone.",
        target="target_net.backbone.",
        projector="online_net.neck.mlp.",
        target_projector="target_net.neck.mlp.",
    ),
    Layout(
        "MoCo",
        online="encoder_q.",
        target="encoder_k.",
        projector="encoder_q.fc.",
        target_projector="encoder_k.fc.",
        marks=("encoder_k.",),
    ),
    Layout("DINO", online="student.backbone.", target="teacher.backbone.", marks=("teacher.backbone.",)),
    Layout("ema-pytorch", online="online_model.", target="ema_model.", marks=("ema_model.",)),
    Layout(
        "mmselfsup 0.x or OpenSelfSup",
        online="online_net.0.",
        target="target_net.0.",
        projector="online_net.1.",
        target_projector="target_net.1.",
    ),
    Layout(
        "mmselfsup 1.x or mmpretrain",
        online="backbone.",
        target="target_net.0.",
        projector="neck.",
        target_projector="target_net.1.",
        marks=("target_net.0.", "neck."),
    ),
    Layout(
        "DeepMind's BYOL",
        online=f"{HAIKU}backbone.",
        target=f"{HAIKU}target_backbone.",
        projector=f"{HAIKU}projector.",
        target_projector=f"{HAIKU}target_projector.",
        stem="same",
    ),
    Layout("VISSL", online="base_model.trunk._feature_blocks."),
)


@dataclass(frozen=True)
class Placed:
    """A layout as it stands in a checkpoint: all its parts are behind `root`."""

    layout: Layout
    root: str


def strip_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def is_copy(prefix: str) -> bool:
    return bool(COPIES & set(re.split(r"[._]", prefix.lower())))


def find_layout(keys: Iterable[str]) -> Placed | None:
    """The layout of names that `strip_wrappers` gave; None where no project's is recognized."""
    keys = list(keys)
    for layout in LAYOUTS:
        for root in _find_roots(layout.online, keys):
            if all(any(key.startswith(root + mark) for key in keys) for mark in layout.marks):
                return Placed(layout, root)
    return None


def _find_roots(part: str, keys: Iterable[str]) -> list[str]:
    """What stands before a part, the shortest first; never a copy's name."""
    ends = (re.match(rf"((?:.*?\.)?){re.escape(part)}", key) for key in keys)
    return sorted({match[1] for match in ends if match and not is_copy(match[1])}, key=len)
