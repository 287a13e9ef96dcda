"""PyTorch's side of a comparison: the network that a bundle was made from, or the one it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..models.backbones import build_backbone
from ..models.checkpoint import read_target
from ..models.network import InferenceNetwork
from ..models.starts import find_path
from ..models.weights import load_encoder, load_network, load_weights, serialize_weights, untrained_encoder
from ..runtime.bundle import Bundle
from ..runtime.errors import RunError, UsageError
from ..runtime.files import sha256
from ..runtime.run import ENCODER, EncoderSpec, Run


@dataclass(frozen=True)
class Reference:
    """PyTorch, eager, FP32. `difference`: how its weights, those of `against`, are not the bundle's; empty if they are.

    `against`: None for the bundle's own weights.
    """

    network: InferenceNetwork
    difference: str = ""
    against: Path | None = None


def load_reference(bundle: Bundle, against: Path | None = None) -> Reference:
    """The bundle's own weights in the architecture that its manifest names, or those of a run or a checkpoint.

    Raises BundleError, RunError and UsageError.
    """
    own = load_own_network(bundle)
    if against is None:
        return Reference(own)
    spec = bundle.encoder_spec
    run = Run(against)
    if run.exists:
        trained = run.read_encoder()
        if _name(trained.spec) != _name(spec):
            what = f"a {_name(trained.spec)}, where {bundle.path} is of a {_name(spec)}"
            raise UsageError(f"{{against}}: {what}", against=against)
        backbone = load_encoder(trained.weights, spec, str(against / ENCODER))
    else:
        backbone = build_backbone(spec.backbone, spec.preprocessing.image_size, spec.stem)
        load_weights(find_path(against, spec.backbone).read(), backbone, spec.backbone, str(against))
    network = InferenceNetwork(backbone, bundle.preprocessing, own.tail)
    return Reference(network, _describe_difference(bundle, own, network, against), against)


def load_own_network(bundle: Bundle) -> InferenceNetwork:
    """The bundle's own weights in the architecture that its manifest names, eager, FP32."""
    return load_network(bundle.read(ENCODER), bundle.encoder_spec, str(bundle.path / ENCODER))


def load_untrained(bundle: Bundle) -> InferenceNetwork:
    """The bundle's architecture with random weights: by the seed of its run, if it is of one."""
    seed = bundle.provenance.seed or 0
    return InferenceNetwork(untrained_encoder(bundle.encoder_spec, seed), bundle.preprocessing)


def _name(spec: EncoderSpec) -> str:
    return f"{spec.backbone} ({spec.stem} stem)"


def _describe_difference(bundle: Bundle, own: InferenceNetwork, other: InferenceNetwork, against: Path) -> str:
    """How the weights differ, by their hashes first."""
    hashes = [sha256(serialize_weights(network.backbone)) for network in (own, other)]
    if hashes[0] == hashes[1]:
        return ""
    states = [network.backbone.state_dict() for network in (own, other)]
    differing = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    text = (
        f"{against} holds other weights than {bundle.path} (sha256 {hashes[1][:12]}, not {hashes[0][:12]}): "
        f"{len(differing)} of {len(states[0])} tensors differ"
    )
    if _is_target_of(Run(against), hashes[0]):
        return f"{text}; the bundle holds this run's target network, not its online network"
    trained = bundle.provenance
    known = trained.epoch is not None and trained.epochs is not None
    return text + (f"; the bundle was made after epoch {trained.epoch} of a run of {trained.epochs}" if known else "")


def _is_target_of(run: Run, sha: str) -> bool:
    try:
        return run.exists and sha256(read_target(run)) == sha
    except RunError:  # no checkpoint, or an objective without a target
        return False
