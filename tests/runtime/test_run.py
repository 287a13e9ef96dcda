"""A run on disk, without PyTorch: what is written comes back, and what is missing, unknown or damaged is told apart."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from byol_edge.models.backbones import build_backbone
from byol_edge.models.weights import serialize_encoder
from byol_edge.runtime import ImageError, OutputExistsError, Preprocessing, RunError, find_images
from byol_edge.runtime.interval import Interval
from byol_edge.runtime.reading import draw_from
from byol_edge.runtime.run import EncoderSpec, Metrics, Provenance, Run, read_description

SPEC = EncoderSpec("conv4", "standard", 256, Preprocessing(32))


def metrics(epoch: int, loss: float = 1.0) -> Metrics:
    gain, lead = Interval(0.1, 0.05, 0.15), Interval(-0.1, -0.2, 0.0)
    return Metrics(
        epoch, epoch * 10, loss, 0.1, {"tau": 0.99}, 50.0, 0.5, 0.3, gain, 0.4, lead, 0.01, 100.0, 0.1, 1.0, 2
    )


def started(path: Path, config: dict[str, object] | None = None) -> Run:
    run = Run(path)
    with run.locked():
        run.start({"settings": {}} if config is None else config)
    return run


def test_calibration_is_drawn_from_the_whole_set_and_comes_back(photos: Path, tmp_path: Path):
    images = draw_from(find_images(photos), SPEC.preprocessing, 512).pixels
    assert (images.shape, images.dtype) == ((120, 32, 32, 3), np.uint8)
    run = started(tmp_path / "run")
    run.save_calibration(images)
    assert np.array_equal(run.read_calibration(32), images)
    with pytest.raises(RunError, match="not two or more images of 64 px"):
        run.read_calibration(64)


def test_calibration_is_at_most_so_many_and_the_seeds(photos: Path):
    paths = find_images(photos) * 5
    first, again, other = (draw_from(paths, SPEC.preprocessing, 512, seed).pixels for seed in (0, 0, 1))
    assert len(first) == 512
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_calibration_passes_over_what_it_cannot_read(photos: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [tmp_path / "broken.png", *find_images(photos)[:3]]
    assert len(draw_from(paths, SPEC.preprocessing, 512).pixels) == 3
    with pytest.raises(ImageError, match="none of the 1 images can be read"):
        draw_from(paths[:1], SPEC.preprocessing, 512)


def test_a_run_without_calibration_says_what_to_give(tmp_path: Path):
    with pytest.raises(RunError, match="keeps no images to calibrate with and to judge by; give calibration=DIR"):
        started(tmp_path / "run").read_calibration(32)


@pytest.mark.parametrize("text", ['{"epoch": 1', "[]", "7", '{"epoch": 1}\nnull', "[" * 100_000])
def test_damaged_metrics_are_named(tmp_path: Path, text: str):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(RunError, match=r"metrics\.jsonl: damaged"):
        Run(tmp_path).read_metrics()


def test_metrics_come_back_and_those_of_a_repeated_epoch_replace_those_of_the_killed_one(tmp_path: Path):
    run = started(tmp_path / "run")
    for epoch, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 9.0)):
        history = run.append_metrics(metrics(epoch, loss))
    assert history == run.read_metrics() == [metrics(1, 1.0), metrics(2, 9.0)]


def test_a_missing_figure_is_its_default_and_an_unknown_one_is_passed_over(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 3, "rank": 5.0, "of a later version": 1}\n')
    (line,) = Run(tmp_path).read_metrics()
    assert (line.epoch, line.rank, line.knn, line.diagnostics) == (3, 5.0, None, {})


def test_a_new_run_replaces_an_old_one_only_when_told_to(tmp_path: Path):
    run = started(tmp_path / "r")
    (run.path / "last.pt").touch()
    (run.path / ".last.pt.123-4.part.pt").touch()  # of a killed process
    with pytest.raises(OutputExistsError, match="resume=True, or replace it: overwrite=True"):
        run.check_free(overwrite=False)
    run.check_free(overwrite=True)
    started(tmp_path / "r", {"settings": {"a": 1}})
    assert sorted(entry.name for entry in run.path.iterdir()) == ["config.json", "lock"]
    assert run.read_config()["settings"] == {"a": 1}


def test_what_is_not_a_run_is_never_replaced(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(OutputExistsError, match="is not a run"):
        Run(tmp_path / "photos").check_free(overwrite=True)
    started(tmp_path / "run")
    (tmp_path / "run" / "my notes.txt").touch()
    with pytest.raises(OutputExistsError, match=r"also holds my notes\.txt"):
        Run(tmp_path / "run").check_free(overwrite=True)


def test_a_lock_keeps_other_processes_off_and_ends_with_its_process(tmp_path: Path):
    run = started(tmp_path / "run")
    code = f"""
from byol_edge.runtime.run import Run
from pathlib import Path
import os, sys
with Run(Path({str(run.path)!r})).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another `byol-edge train` is at work"), run.locked():
            pass
        process.kill()
    with run.locked():
        pass


def test_the_workers_of_a_killed_process_hold_no_lock(tmp_path: Path):
    run = started(tmp_path / "run")
    code = f"""
from byol_edge.runtime.run import Run
from pathlib import Path
import os, sys, time
with Run(Path({str(run.path)!r})).locked():
    if not os.fork():  # as a data loader does
        print("held", flush=True)
        time.sleep(20)
        os._exit(0)
    time.sleep(20)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another `byol-edge train` is at work"), run.locked():
            pass
        process.kill()
        process.wait()
        with run.locked():
            pass
        process.stdout.close()


def test_a_lock_on_what_was_never_begun_leaves_nothing(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), Run(tmp_path / "run").locked():
        _ = 1 / 0
    assert not (tmp_path / "run").exists()
    # A process that was killed here leaves the lock alone; that is no run, and the place is free.
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "lock").touch()
    Run(tmp_path / "killed").check_free(overwrite=False)


@pytest.mark.parametrize("missing", ["config", "epoch", "folder"])
def test_a_run_without_an_encoder_says_what_is_missing(tmp_path: Path, missing: str):
    path = tmp_path / "run"
    if missing == "epoch":
        started(path)
    elif missing == "config":
        path.mkdir()
    what = {"config": r"not a run", "epoch": "no finished epoch yet", "folder": "no such run"}[missing]
    with pytest.raises(RunError, match=what):
        Run(path).read_encoder()


def test_weights_and_description_are_of_one_epoch_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever rename a kill comes before or after, the verdict that is read is that of the weights beside it."""
    run = started(tmp_path / "run")
    contents = [
        serialize_encoder(build_backbone("conv4", 32), SPEC, Provenance(epoch=epoch, verdict=f"of epoch {epoch}"))
        for epoch in (1, 2)
    ]
    run.save_encoder(contents[0])

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for call in ("fsync", "open"):  # before the rename: the first epoch's, whole
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, call, kill)
            run.save_encoder(contents[1])
        read = run.read_encoder()
        assert (read.provenance.epoch, read.provenance.verdict, read.weights) == (1, "of epoch 1", contents[0])
    run.save_encoder(contents[1])
    read = run.read_encoder()
    assert (read.provenance.epoch, read.provenance.verdict, read.weights) == (2, "of epoch 2", contents[1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
    ],
)
def test_damaged_weights_are_named(tmp_path: Path, content: bytes):
    run = started(tmp_path / "run")
    run.save_encoder(content)
    with pytest.raises(RunError, match=r"encoder\.safetensors: does not say what it is"):
        run.read_encoder()


def test_an_unknown_or_missing_key_of_a_provenance_damages_nothing():
    content = serialize_encoder(build_backbone("conv4", 32), SPEC, Provenance(seed=3))
    description = read_description(content)
    changed = {**description["provenance"], "of a later version": 1}
    del changed["verdict"]
    assert Provenance.from_json(changed) == Provenance(seed=3)


@pytest.mark.parametrize("text", ["", "[]", '{"settings": 7}', '{"format_version": "new"}', "{" * 100_000])
def test_a_damaged_config_is_named(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json"):
        Run(tmp_path).read_config()


def test_a_run_holds_what_the_design_says(finished_run: Path):
    assert sorted(entry.name for entry in finished_run.iterdir()) == [
        "calibration.npz", "config.json", "curves.png", "encoder.safetensors", "last.pt", "lock", "metrics.jsonl",
        "tensorboard", "views.png",
    ]  # fmt: skip
    config = json.loads((finished_run / "config.json").read_text())
    assert config["settings"]["seed"] == 0
    assert (config["images"]["count"], config["images"]["queries"]) == (108, 12)
    assert "torch" in config["versions"]
    history = Run(finished_run).read_metrics()
    assert [each.epoch for each in history] == [0, 1, 2]
    assert history[0].knn is not None
    assert history[0].loss is None
