"""PyTorch's side of a comparison: the network that a bundle was made from, or the one it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models.backbones import build_backbone
from ..models.checkpoint import read_target
from ..models.fusion import build_untrained, load_fusion
from ..models.module import name_module, prepare_module
from ..models.network import InferenceNetwork, embed_pixels
from ..models.starts import find_path
from ..models.weights import (
    load_network,
    load_weights,
    read_state,
    read_tail,
    serialize_network,
    serialize_weights,
    untrained_encoder,
)
from ..runtime.bundle import Bundle
from ..runtime.errors import RunError, UsageError
from ..runtime.files import sha256
from ..runtime.run import ENCODER, EncoderSpec, Run


@dataclass(frozen=True)
class Reference:
    """PyTorch, eager, FP32. `difference`: how its weights, those of `against`, are not the bundle's; empty if they are.

    `against`: what holds other weights, or may; None for the bundle's own.
    """

    network: InferenceNetwork
    difference: str = ""
    against: str | None = None


def load_reference(bundle: Bundle, against: Path | None = None, module: nn.Module | None = None) -> Reference:
    """The bundle's own weights in the architecture that its manifest names, or those of a run or a checkpoint.

    `module`: this is PyTorch's side; a bundle that was made from a user's own module needs it. Raises BundleError,
    RunError and UsageError.
    """
    if module is not None:
        if against is not None:
            raise UsageError("{against}: a module is what to compare with; leave it out", against=against)
        return _take_module(bundle, module)
    if bundle.module is not None:
        raise UsageError(
            f"{bundle.path}: PyTorch's side cannot be rebuilt from it, since it was made from a module of its maker's "
            f"own ({bundle.module}); give the same one again, as at export: {{module}}",
            module="PACKAGE.MODULE:CALLABLE",
        )
    own = load_own_network(bundle)
    if against is None:
        return Reference(own)
    if bundle.fusion is not None:
        text = f"{{against}}: {bundle.path} holds two encoders, fused; its own weights are all it is compared with"
        raise UsageError(text, against=against)
    spec = bundle.encoder_spec
    run = Run(against)
    if run.exists:
        trained = run.read_encoder()
        if _name(trained.spec) != _name(spec):
            what = f"a {_name(trained.spec)}, where {bundle.path} is of a {_name(spec)}"
            raise UsageError(f"{{against}}: {what}", against=against)
        backbone = load_network(trained.weights, spec, str(against / ENCODER)).backbone
    else:
        backbone = build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem)
        load_weights(find_path(against, spec.backbone).read(), backbone, spec.backbone, str(against))
    network = InferenceNetwork(backbone, bundle.preprocessing, own.tail)
    return Reference(network, _describe_difference(bundle, own, network, against), str(against))


def _take_module(bundle: Bundle, module: nn.Module) -> Reference:
    """A user's own module, with the tail that the bundle holds; its weights are compared if the bundle is of one."""
    content, file = bundle.read(ENCODER), str(bundle.path / ENCODER)
    state = read_state(content, file)
    own = prepare_module(module, bundle.preprocessing)
    name = name_module(own)
    tail = read_tail(state, file)
    wanted = next((each.in_features for each in tail if isinstance(each, nn.Linear)), bundle.embedding_size)
    black = np.zeros((1, *[bundle.preprocessing.image_size] * 2, 3), np.uint8)
    found = embed_pixels(InferenceNetwork(own, bundle.preprocessing), black).shape[1]
    if found != wanted:
        raise UsageError(f"{name} gives vectors of {found} numbers, where {bundle.path} is of one that gives {wanted}")
    network = InferenceNetwork(own, bundle.preprocessing, tail)
    if bundle.module is None:
        return Reference(network, against=name)
    its = serialize_network(network)
    if its == content:
        return Reference(network)
    differing = _count_differing(state, read_state(its, name))
    text = f"{name} holds other weights than {bundle.path}: {differing} of {len(state)} tensors differ"
    return Reference(network, text, name)


def load_own_network(bundle: Bundle) -> InferenceNetwork:
    """The bundle's own weights in the architecture that its manifest names, eager, FP32."""
    content, file = bundle.read(ENCODER), str(bundle.path / ENCODER)
    if bundle.fusion is not None:
        return load_fusion(content, bundle.fusion, file)
    return load_network(content, bundle.encoder_spec, file)


def load_untrained(bundle: Bundle) -> InferenceNetwork:
    """The bundle's architecture with random weights: by the seed of its run, if it is of one."""
    seed = bundle.provenance.seed or 0
    if bundle.fusion is not None:
        return build_untrained(bundle.fusion, seed)
    return InferenceNetwork(untrained_encoder(bundle.encoder_spec, seed), bundle.preprocessing)


def _name(spec: EncoderSpec) -> str:
    return f"{spec.backbone} ({spec.stem} stem)"


def _describe_difference(bundle: Bundle, own: InferenceNetwork, other: InferenceNetwork, against: Path) -> str:
    """How the weights differ, by their hashes first."""
    hashes = [sha256(serialize_weights(network.backbone)) for network in (own, other)]
    if hashes[0] == hashes[1]:
        return ""
    state = own.backbone.state_dict()
    differing = _count_differing(state, other.backbone.state_dict())
    text = (
        f"{against} holds other weights than {bundle.path} (sha256 {hashes[1][:12]}, not {hashes[0][:12]}): "
        f"{differing} of {len(state)} tensors differ"
    )
    if _is_target_of(Run(against), hashes[0]):
        return f"{text}; the bundle holds this run's target network, not its online network"
    trained = bundle.provenance
    known = trained.epoch is not None and trained.epochs is not None
    return text + (f"; the bundle was made after epoch {trained.epoch} of a run of {trained.epochs}" if known else "")


def _count_differing(state: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    """How many of the tensors of `state` have other values, another type or none in `other`."""
    alike = [
        name in other and state[name].dtype == other[name].dtype and torch.equal(state[name], other[name])
        for name in state
    ]
    return alike.count(False)


def _is_target_of(run: Run, sha: str) -> bool:
    try:
        return run.exists and sha256(read_target(run)) == sha
    except RunError:  # no checkpoint, or an objective without a target
        return False
