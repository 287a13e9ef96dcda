from pathlib import Path

import pytest
from byol_edge.export import bundling
from commands import call, fails
from two_runs import write_run


def test_two_sources_become_one_bundle(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "other")
    timed = bundling.time_in_turn
    monkeypatch.setattr(bundling, "time_in_turn", lambda runs, side: timed(runs, side, seconds=0.05))
    made = call("export", finished_run, "other", "--fuse", "--weight", 0.25, "--format", "onnx", "--out", "both")
    assert made.exit_code == 0, made.output
    shown = " ".join(call("inspect", "both").stdout.split())
    assert "two, fused: conv4, standard stem (0.25) and conv4, standard stem (0.75)" in shown
    assert f"encoder 1 {finished_run} weights 1 random at the start" in shown
    assert "encoder 2 other weights 2 random at the start" in shown
    assert call("self-test", "both").exit_code == 0
    assert "holds two encoders, fused" in fails(1, "export", "both", "--out", "again")
    assert "holds two encoders, fused" in fails(1, "export", "both", finished_run, "--fuse", "--out", "again")
    against = fails(2, "validate", "both", "--data", tmp_path, "--against", finished_run)
    assert "its own weights are all it is compared with" in against


def test_what_does_not_go_together_is_one_line(finished_run: Path, tmp_path: Path):
    run, out = finished_run, ("--out", tmp_path / "b")
    assert "2 SOURCEs, where one is exported; --fuse makes one" in fails(2, "export", run, run, *out)
    assert "--fuse takes two SOURCEs, not 1" in fails(2, "export", run, "--fuse", *out)
    assert "--fuse takes two SOURCEs, not 3" in fails(2, "export", run, run, run, "--fuse", *out)
    assert "--fuse takes two SOURCEs, not 0" in fails(2, "export", "--fuse", *out)
    assert "give a SOURCE, or --module" in fails(2, "export", *out)
    assert "are the same encoder" in fails(2, "export", run, run, "--fuse", *out)
    assert "--weight 0.5: of two encoders that are fused" in fails(2, "export", run, "--weight", 0.5, *out)
    for weight in (0, 1, "nan"):
        line = fails(2, "export", run, run, "--fuse", "--weight", weight, *out)
        assert "has to be between 0 and 1" in line
    assert "--module takes one checkpoint" in fails(2, "export", run, "--fuse", "--module", "nets:make", *out)
    assert "--module takes one checkpoint" in fails(2, "export", run, run, "--module", "nets:make", *out)
    assert "no run, no bundle, no checkpoint" in fails(1, "export", run, tmp_path / "gone", "--fuse", *out)
    assert not (tmp_path / "b").exists()
