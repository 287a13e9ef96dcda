from pathlib import Path

import pytest
import torch
from byol_edge.evaluate.reference import load_own_network, load_reference, load_untrained
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.weights import serialize_encoder, serialize_weights, untrained_encoder
from byol_edge.runtime import Bundle, RunError, compare
from byol_edge.runtime.golden import PYTORCH, read_golden
from byol_edge.runtime.run import Provenance, Run
from sabotage import change_manifest


def same_weights(first: InferenceNetwork, second: torch.nn.Module) -> bool:
    states = first.backbone.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def save_other_weights(file: Path) -> Path:
    torch.manual_seed(5)
    file.write_bytes(serialize_weights(build_backbone("conv4", 32)))
    return file


def test_a_bundles_own_network_is_the_one_that_was_exported(finished_bundle: Path, finished_run: Path):
    bundle = Bundle.open(finished_bundle)
    own = load_own_network(bundle)
    golden = read_golden(bundle)
    assert compare(golden.embeddings[PYTORCH], embed_pixels(own, golden.images)).cosine_min > 0.99999
    assert serialize_weights(own.backbone) == bundle.read("encoder.safetensors")
    assert load_reference(bundle, finished_run).difference == ""


def test_the_untrained_network_is_the_one_that_the_seed_draws(finished_bundle: Path):
    bundle = Bundle.open(finished_bundle)
    untrained = load_untrained(bundle)
    assert same_weights(untrained, untrained_encoder(bundle.encoder_spec, 0))
    assert not same_weights(untrained, load_own_network(bundle).backbone)


def test_provenance_is_that_of_the_run_and_what_is_missing_is_none(bundle: Path, finished_run: Path):
    of_run = Run(finished_run).read_encoder().provenance
    of_bundle = Bundle.open(bundle).provenance
    assert (of_bundle.epoch, of_bundle.epochs, of_bundle.seed, of_bundle.recipe) == (2, 2, 0, of_run.recipe)
    assert of_bundle.verdict == of_run.verdict
    change_manifest(bundle, lambda manifest: manifest["provenance"]["training"].update(weather="fine"))
    assert Bundle.open(bundle).provenance == of_bundle
    change_manifest(bundle, lambda manifest: manifest["provenance"]["training"].pop("seed"))
    assert Bundle.open(bundle).provenance.seed is None
    load_untrained(Bundle.open(bundle))  # by some seed
    for value in (None, [], "x", {"training": None}):
        change_manifest(bundle, lambda manifest, value=value: manifest.update(provenance=value))
        assert Bundle.open(bundle).provenance == Provenance()


def test_other_weights_in_a_checkpoint_are_described(bundle: Path, tmp_path: Path):
    file = save_other_weights(tmp_path / "other.safetensors")
    difference = load_reference(Bundle.open(bundle), file).difference
    assert f"{file} holds other weights than {bundle}" in difference
    assert "tensors differ; the bundle was made after epoch 2 of a run of 2" in difference
    change_manifest(bundle, lambda manifest: manifest.pop("provenance"))
    assert load_reference(Bundle.open(bundle), file).difference.endswith("tensors differ")


@pytest.mark.parametrize("content", [b"x", None])
def test_a_run_without_a_whole_checkpoint_can_be_compared_with(finished_bundle: Path, run: Path, content: bytes | None):
    trained = Run(run).read_encoder()
    torch.manual_seed(5)
    Run(run).save_encoder(serialize_encoder(build_backbone("conv4", 32), trained.spec, trained.provenance))
    (run / "last.pt").write_bytes(content) if content else (run / "last.pt").unlink()
    assert "tensors differ" in load_reference(Bundle.open(finished_bundle), run).difference


def test_what_is_no_run_and_no_checkpoint_is_refused(finished_bundle: Path, tmp_path: Path):
    bundle = Bundle.open(finished_bundle)
    with pytest.raises(RunError, match="gone: no run, no bundle, no checkpoint"):
        load_reference(bundle, tmp_path / "gone")
    (tmp_path / "notes.safetensors").write_text("x")
    with pytest.raises(RunError, match=r"notes\.safetensors: not a checkpoint of plain tensors"):
        load_reference(bundle, tmp_path / "notes.safetensors")
