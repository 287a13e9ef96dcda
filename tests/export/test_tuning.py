from pathlib import Path

import pytest
import torch
from byol_edge.export import tuning
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import Source, load_source
from byol_edge.export.tuning import fine_tune, simulate_int8
from byol_edge.models.network import InferenceNetwork, embed_pixels


@pytest.fixture
def source(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(tuning, "STEPS", 20)
    return load_source(finished_run, ExportConfig())


def loss(source: Source, network: InferenceNetwork) -> float:
    """One less the mean cosine of embeddings as INT8 would give them. The network goes on rounding."""
    simulate_int8(network, torch.from_numpy(source.calibrate))
    return float(1 - (embed_pixels(network, source.judge) * source.reference).sum(1).mean())


def test_rounding_costs_less_after_it(source: Source):
    tuned = fine_tune(source.network, source.calibrate)
    assert 0 < loss(source, tuned) < 0.8 * loss(source, source.network)


def test_what_comes_out_is_a_float_network_and_the_first_one_is_as_it_was(source: Source):
    before = {key: value.clone() for key, value in source.network.state_dict().items()}
    tuned = fine_tune(source.network, source.calibrate)
    after = source.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert tuned.state_dict().keys() == before.keys()
    assert not torch.equal(tuned.state_dict()["backbone.conv1.weight"], before["backbone.conv1.weight"])
    assert not any(module._forward_pre_hooks for module in tuned.modules())


def test_the_same_network_comes_out_every_time(source: Source):
    first, second = (fine_tune(source.network, source.calibrate).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_stops_when_its_time_is_up_and_says_so(
    source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(tuning, "MOST_SECONDS", 0)
    fine_tune(source.network, source.calibrate)
    assert caplog.messages[-1] == "  fine-tuning stopped after 1 of 20 steps: its time is up"
