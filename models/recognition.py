"""What a checkpoint is: whose layout, which network, which stem; and its tensors under the backbone's own names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ..runtime.errors import RunError, UsageError
from .backbones import SAME_STEM, WIDER_STEM
from .families import FAMILIES, find_twin, list_names
from .layouts import Placed, find_layout, is_copy, strip_wrappers
from .matching import COUNTER, LISTED, Match, Part, State, build_empty, find_side, match_namings, tell_differences
from .namings import NAMINGS
from .tail import Linear, read_layers

# Of a gray value, what red, green and blue contribute (ITU-R BT.601), as in Pillow's "L".
LUMA = (0.299, 0.587, 0.114)
GRAY = "channels: gray, weighed as Pillow does"
BGR = "channels: blue, green, red"


@dataclass(frozen=True)
class Recognized:
    """`tensors`: the backbone's, by its own names, for RGB images. `image_size`: where the weights are for one only.

    `place`: what the backbone's names begin with in the checkpoint. `project`: whose layout it is, None if none that is
    known. `assumptions`: what the tensors do not say, in words.
    """

    backbone: str
    stem: str
    tensors: State
    place: str
    project: str | None = None
    image_size: int | None = None
    layers: tuple[Linear, ...] = ()
    assumptions: tuple[str, ...] = ()


def recognize(
    state: State, file: str, backbone: str | None = None, network: str = "online", bgr: bool = False
) -> Recognized:
    """Finds the backbone of a checkpoint whose tensors have the names that torch or safetensors give.

    `backbone`: which it is, if that is known. `network`: "online" or "target". `bgr`: its first layer takes blue,
    green, red. Raises RunError where it is not found whole, and UsageError where it has to be said which it is.
    """
    keys = _by_stripped_name(state, file)
    placed = find_layout(keys)
    part = _find_part(keys, state, placed, file, network, backbone)
    match = _find_match(part, placed, file, backbone)
    tensors = {ours: part.state[theirs] for ours, theirs in match.names.items() if theirs in part.state}
    _check_values(tensors, match, part, file)
    assumptions = _list_assumptions(match, backbone)
    tensors, channels = _as_rgb(tensors, match, file, bgr)
    return Recognized(
        backbone=match.backbone,
        stem=match.stem,
        tensors=tensors,
        place=part.place,
        project=placed.layout.project if placed else None,
        image_size=find_side(match.backbone, part.state),
        layers=_read_projector(keys, state, placed, network),
        assumptions=(*assumptions, *channels),
    )


def _by_stripped_name(state: State, file: str) -> dict[str, str]:
    """The names of a checkpoint's tensors, by these names without wrappers."""
    keys: dict[str, str] = {}
    for key, tensor in state.items():
        stripped = strip_wrappers(key)
        if stripped in keys and not _are_equal(state[keys[stripped]], tensor):
            raise RunError(f"{file}: holds two tensors for one, {keys[stripped]} and {key}; keep the one that is meant")
        keys.setdefault(stripped, key)
    return keys


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _cut(keys: Mapping[str, str], state: State, place: str) -> Part:
    return Part(place, {key.removeprefix(place): state[full] for key, full in keys.items() if key.startswith(place)})


def _find_part(
    keys: Mapping[str, str], state: State, placed: Placed | None, file: str, network: str, backbone: str | None
) -> Part:
    """The network that is asked for: where its project keeps it, or the only one that there is."""
    if placed is not None:
        return _find_placed(keys, state, placed, file, network)
    places = _find_places(keys, backbone)
    if not places:
        raise _unknown(keys, state, file, backbone)
    parts = [_cut(keys, state, place) for place in places if is_copy(place) == (network == "target")]
    if not parts and network == "target":
        raise UsageError(f"{{network}}: {file} holds none that is known by its name", network=network)
    if not parts:
        raise RunError(f"{file}: holds a copy ({places[0]}), and not the network that learned")
    for part in parts[1:]:
        if not _hold_the_same(part.state, parts[0].state):
            both = " and ".join(each.place or "the outermost" for each in (parts[0], part))
            raise RunError(f"{file}: holds several networks ({both}), and no word of which is wanted; save one alone")
    return parts[0]


def _find_placed(keys: Mapping[str, str], state: State, placed: Placed, file: str, network: str) -> Part:
    where = placed.layout.online if network == "online" else placed.layout.target
    part = _cut(keys, state, placed.root + where)
    if not where or not part.state:
        raise UsageError(f"{{network}}: {file}, of {placed.layout.project}, holds none", network=network)
    return part


def _find_places(keys: Iterable[str], backbone: str | None) -> list[str]:
    """What stands before the first tensor that networks are known by; before most of the tensors of a known one."""
    keys = list(keys)
    if backbone is not None:
        return _find_places_of(backbone, keys)
    marks = (mark for family in FAMILIES for mark in family.marks)
    found = ([key.removesuffix(mark) for key in keys if f".{key}".endswith(f".{mark}")] for mark in marks)
    return next((places for places in found if places), [])


def _find_places_of(backbone: str, keys: Sequence[str]) -> list[str]:
    expected = list(build_empty(backbone, find_side(backbone, {})).state_dict())
    known = set(keys)
    held: dict[str, int] = {}
    for naming in NAMINGS:
        names = naming.rename(expected)
        for mark in (names[0], names[len(names) // 2]):
            for place in (key.removesuffix(mark) for key in keys if f".{key}".endswith(f".{mark}")):
                held[place] = max(held.get(place, 0), sum(place + name in known for name in names))
    # "layer1.0." holds a "conv1.weight", too.
    whole = [place for place, count in held.items() if 2 * count > len(expected)]
    return whole or sorted(held, key=lambda place: -held[place])[:1]


def _hold_the_same(one: State, other: State) -> bool:
    shared = one.keys() & other.keys()
    return bool(shared) and all(_are_equal(one[key], other[key]) for key in shared)


def _unknown(keys: Mapping[str, str], state: State, file: str, backbone: str | None) -> Exception:
    listed = ", ".join(f"{key} {list(state[full].shape)}" for key, full in islice(keys.items(), LISTED))
    if backbone is not None:
        return RunError(f"{file}: no weights of {backbone}; it begins with {listed}")
    return UsageError(
        f"{file}: no network that is known by its tensors; it begins with {listed}. Give {{backbone}}", backbone="NAME"
    )


def _find_match(part: Part, placed: Placed | None, file: str, backbone: str | None) -> Match:
    """The backbone that fits, tensor by tensor. Raises RunError that tells how the nearest one differs."""
    stems = (placed.layout.stem, placed.layout.small_stem) if placed else ("standard", "small")
    nearest: Match | None = None
    for name in [backbone] if backbone is not None else _list_candidates(part.state):
        for match in match_namings(part.state, name, *stems):
            if not match.differences:
                _ask_which_twin(match, part.state, file, backbone)
                return match
            nearest = match if nearest is None or match.differences < nearest.differences else nearest
    if nearest is None:
        raise RunError(f"{file}: no weights of {backbone or 'a network that is known here'}")
    raise RunError(tell_differences(nearest, part, file))


def _list_candidates(state: State) -> Iterator[str]:
    for family in FAMILIES:
        if any(mark in state for mark in family.marks):
            yield from list_names(family)


def _ask_which_twin(match: Match, state: State, file: str, backbone: str | None) -> None:
    twin = find_twin(match.backbone) if backbone is None else None
    lukemelas = any(name.startswith("_conv_stem") for name in match.names.values())  # always as TensorFlow pads
    if twin is None or lukemelas:
        return
    if any(not each.differences for each in match_namings(state, twin, "standard", "small")):
        raise UsageError(
            f"{file}: its tensors fit {match.backbone} and {twin}, which compute different things. Give {{backbone}}",
            backbone=match.backbone,
        )


def _check_values(tensors: State, match: Match, part: Part, file: str) -> None:
    for ours, tensor in tensors.items():
        if ours.endswith(COUNTER):
            continue
        name = part.place + match.names[ours]
        if not tensor.dtype.is_floating_point:
            raise RunError(f"{file}: {name} is {tensor.dtype}, not torch.float32")
        if not tensor.float().isfinite().all():
            raise RunError(f"{file}: {name} holds values that are no finite numbers")


def _as_rgb(tensors: State, match: Match, file: str, bgr: bool) -> tuple[State, tuple[str, ...]]:
    """The weights for red, green and blue: of those for gray, or for blue, green and red, the same function."""
    name = match.image_layer
    if name is None:
        return tensors, ()
    weight = tensors[name]
    if weight.shape[1] == 3:
        return ({**tensors, name: weight.flip(1)}, (BGR,)) if bgr else (tensors, ())
    if weight.shape[1] == 1:
        luma = torch.tensor(LUMA, dtype=torch.float64).view(1, 3, 1, 1)
        return {**tensors, name: (weight.double() * luma).float()}, (GRAY,)
    raise RunError(f"{file}: takes images of {weight.shape[1]} channels; gray and color ones are exported")


def _list_assumptions(match: Match, backbone: str | None) -> tuple[str, ...]:
    assumed = [] if backbone is not None else [f"network: {match.backbone}, by its tensors' names and shapes"]
    if match.stem == SAME_STEM:
        assumed.append("padding: as TensorFlow's SAME")
    elif match.stem != "standard":
        padding = 2 if match.stem == WIDER_STEM else 1
        assumed.append(f"stem: 3×3, stride 1, padding {padding}, no max-pool")
    return tuple(assumed)


def _read_projector(keys: Mapping[str, str], state: State, placed: Placed | None, network: str) -> tuple[Linear, ...]:
    """What follows the backbone in training; empty where it is not known, or not of linear layers and norms."""
    if placed is None:
        return ()
    part = placed.layout.projector if network == "online" else placed.layout.target_projector
    return tuple(read_layers(_cut(keys, state, placed.root + part).state)) if part else ()
