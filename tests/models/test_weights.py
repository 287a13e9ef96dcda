from pathlib import Path

import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.runtime import Preprocessing, RunError
from byol_edge.runtime.run import EncoderSpec, load_encoder, save_weights, untrained_encoder

SPEC = EncoderSpec("conv4", "standard", 256, Preprocessing(32))


def test_weights_come_back_as_they_were(tmp_path: Path):
    backbone = build_backbone("conv4", 32)
    save_weights(tmp_path / "w.safetensors", backbone)
    loaded = load_encoder((tmp_path / "w.safetensors").read_bytes(), SPEC, "w")
    assert not loaded.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_the_same_weights_are_the_same_bytes(tmp_path: Path):
    backbone = build_backbone("conv4", 32)
    save_weights(tmp_path / "a", backbone)
    save_weights(tmp_path / "b", backbone)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_of_another_network_are_refused_with_the_difference(tmp_path: Path):
    save_weights(tmp_path / "w", build_backbone("conv4_nobn", 32))
    with pytest.raises(RunError, match="tensors differ from conv4: bn1"):
        load_encoder((tmp_path / "w").read_bytes(), SPEC, "w")


def test_damaged_weights_are_refused():
    with pytest.raises(RunError, match=r"w\.safetensors: not a safetensors file"):
        load_encoder(b"\x00" * 100, SPEC, "w.safetensors")


def test_a_spec_survives_json():
    assert EncoderSpec.from_json(SPEC.to_json()) == SPEC


def test_the_untrained_encoder_depends_on_the_seed_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, again, other = (untrained_encoder(SPEC, seed).get_parameter("conv1.weight") for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
