"""Runs that go on: by their folder alone, from elsewhere, for more epochs, and from damaged files."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from byol_edge.models.byol import BYOLConfig
from byol_edge.runtime import RunError, UsageError
from byol_edge.runtime.progress import Progress
from byol_edge.runtime.run import Run
from byol_edge.train import loop
from byol_edge.train.config import TrainConfig
from byol_edge.train.pretrain import pretrain
from byol_edge.train.resuming import fill, read_record, started_with
from byol_edge.train.settings import resolve
from training import CONFIG


class Stop(Exception):
    """Stands for a kill."""


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Trains until a step, counted from 1."""

    def train_until(step: int, *arguments: Any, **options: Any) -> None:
        def report(progress: Progress) -> None:
            if progress.done == step * 16:
                raise Stop

        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(loop, "report_progress", report)
            pretrain(*arguments, **options)

    return train_until


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def change_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_run_goes_on_by_its_folder_alone(
    photos: Path, finished_run: Path, tmp_path: Path, stopped_at: Callable[..., None]
):
    out = tmp_path / "run"
    stopped_at(8, photos, out, CONFIG)
    pretrain(None, out, resume=True)
    assert weights(out) == weights(finished_run)
    assert (out / "config.json").read_bytes() == (finished_run / "config.json").read_bytes()


def test_without_a_run_there_is_nothing_to_go_on_with(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no run to go on with, out=.*; give images=IMAGES to start a run"):
        pretrain(None, tmp_path / "run", CONFIG, resume=True)
    with pytest.raises(UsageError, match=r"^give images=IMAGES to start a run"):
        pretrain(None, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_labels_and_the_images_to_measure_on_are_remembered(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(photos, tmp_path / "eval")
    names = [path.relative_to(photos) for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "l.csv").write_text("image,label\n" + "".join(f"{name},{name.parent}\n" for name in names))
    monkeypatch.chdir(tmp_path)
    pretrain(photos, "run", CONFIG, evaluation="eval", labels="l.csv")
    monkeypatch.chdir("/")
    run = tmp_path / "run"
    images = Run(run).read_config()["images"]
    assert (images["labels"], images["evaluation"]) == (str(tmp_path / "l.csv"), str(tmp_path / "eval"))
    for given in (None, photos):
        pretrain(given, run, resume=True)
    with pytest.raises(UsageError, match=r"other images to measure kNN on \(were 120, now 40\)"):
        shutil.rmtree(tmp_path / "eval" / "disc")
        shutil.rmtree(tmp_path / "eval" / "square")
        shutil.copytree(photos / "disc", tmp_path / "eval" / "disc")
        shutil.rmtree(tmp_path / "eval" / "stripes")
        shutil.copytree(photos / "disc", tmp_path / "eval" / "square")
        for path in sorted((tmp_path / "eval").rglob("*.png"))[::2]:
            path.unlink()
        pretrain(None, run, resume=True)
    (tmp_path / "l.csv").unlink()
    with pytest.raises(
        RunError, match=r"l\.csv: was used by this run, and is not there; if it has moved, give labels="
    ):
        pretrain(None, run, resume=True)


def test_as_many_other_images_to_measure_on_are_refused(photos: Path, tmp_path: Path):
    # The gain is query by query: of other queries, it would compare each image with another one's start.
    for name in ("eval", "renamed", "moved"):
        shutil.copytree(photos, tmp_path / name)
    (tmp_path / "renamed" / "disc" / "00.png").rename(tmp_path / "renamed" / "disc" / "99.png")
    config = replace(CONFIG, epochs=1)
    pretrain(photos / "disc", tmp_path / "run", config, evaluation=tmp_path / "eval")
    with pytest.raises(UsageError, match=r"measure kNN on \(as many, with other names or classes\)"):
        pretrain(None, tmp_path / "run", replace(config, epochs=2), evaluation=tmp_path / "renamed", resume=True)
    pretrain(None, tmp_path / "run", replace(config, epochs=2), evaluation=tmp_path / "moved", resume=True)


def test_images_that_have_moved_are_named_and_can_be_given_anew(photos: Path, tmp_path: Path):
    before, after, run = tmp_path / "before", tmp_path / "after", tmp_path / "run"
    shutil.copytree(photos, before)
    pretrain(before, run, CONFIG)
    before.rename(after)
    with pytest.raises(
        RunError, match="before: was used by this run, and is not there; if it has moved, give images=IMAGES"
    ):
        pretrain(None, run, resume=True)
    with pytest.raises(UsageError, match=r"other images to measure kNN on \(were 12, now 0\)"):
        pretrain(after / "disc", run, resume=True)
    pretrain(after, run, resume=True)
    pretrain(None, run, resume=True)
    assert Run(run).read_config()["images"]["folder"] == str(after)


def test_a_folder_whose_name_is_not_utf_8_is_remembered(photos: Path, tmp_path: Path):
    odd = tmp_path / "caf\udce9"
    shutil.copytree(photos, odd)
    pretrain(odd, tmp_path / "run", CONFIG)
    pretrain(None, tmp_path / "run", resume=True)
    assert Run(tmp_path / "run").read_config()["images"]["folder"] == str(odd)


def test_a_finished_run_is_made_longer(
    photos: Path, run: Path, tmp_path: Path, stopped_at: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    killed = Path(shutil.copytree(run, tmp_path / "killed"))
    longer = replace(started_with(Run(run)), epochs=4)
    with caplog.at_level(logging.INFO):
        pretrain(None, run, longer, resume=True)
    said = (
        "a longer plan: 4 epochs instead of 2; the learning rate follows the longer schedule from epoch 3",
        "going on after epoch 2 of 4",
    )
    assert [message for message in caplog.messages if message in said] == [*said]
    history = Run(run).read_metrics()
    assert [each.epoch for each in history] == [0, 1, 2, 3, 4]
    # The second epoch ended near 0, the first plan's last rate; the third is on the longer one's way there.
    rates = [each.learning_rate or 0.0 for each in history[1:]]
    assert rates[2] > 5 * max(rates[1], rates[3])
    provenance = Run(run).read_encoder().provenance
    assert (provenance.epoch, provenance.epochs) == (4, 4)
    # A kill in a longer run, and all goes on with the longer plan.
    stopped_at(15, None, killed, longer, resume=True)
    assert Run(killed).read_config()["settings"]["plan"]["epochs"] == 4
    pretrain(None, killed, resume=True)
    assert weights(killed) == weights(run)


def test_what_was_computed_from_the_epochs_is_no_change(photos: Path, tmp_path: Path):
    config = TrainConfig("conv4", 32, epochs=1, workers=0)
    more = replace(config, epochs=2)
    # By themselves, the two plans differ in more than their epochs.
    first, second = resolve(config, 108), resolve(more, 108)
    assert first.plan.warmup_epochs != second.plan.warmup_epochs
    pretrain(photos, tmp_path / "run", config)
    pretrain(photos, tmp_path / "run", more, resume=True)
    settings = Run(tmp_path / "run").read_config()["settings"]
    expected = first.to_json()
    expected["plan"]["epochs"] = 2
    assert settings == expected


def test_fewer_epochs_than_are_done_are_refused_and_fewer_than_planned_are_not(
    photos: Path, run: Path, tmp_path: Path, stopped_at: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    with pytest.raises(UsageError, match="epochs=1: the run has finished 2; take as many, or more"):
        pretrain(None, run, replace(CONFIG, epochs=1), resume=True)
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before
    stopped_at(8, photos, tmp_path / "run9", replace(CONFIG, epochs=9))
    with caplog.at_level(logging.INFO):
        pretrain(None, tmp_path / "run9", CONFIG, resume=True)
    assert any(message.startswith("a shorter plan: 2 epochs instead of 9") for message in caplog.messages)
    assert Run(tmp_path / "run9").read_metrics()[-1].epoch == 2


def test_an_epoch_without_its_checkpoint_is_not_judged_by(run: Path):
    before = Run(run).read_metrics()
    change_json(run / "config.json", lambda content: content["settings"]["plan"].update(epochs=3))
    Run(run).append_metrics(replace(before[-1], epoch=3, rank=1))  # and then it was killed
    assert "rank 1 " not in str(pretrain(None, run, CONFIG, resume=True))
    assert Run(run).read_metrics() == before


def test_a_plan_shorter_than_the_warm_up_is_refused_by_its_epochs(run: Path):
    change_json(run / "config.json", lambda content: content["settings"]["plan"].update(epochs=40, warmup_epochs=4.0))
    started = read_record(Run(run)).config
    for config in (replace(CONFIG, epochs=3), replace(started, epochs=3)):  # as in Python, and as the command does it
        with pytest.raises(UsageError, match="epochs=3: the run's warm-up takes 4; take as many, or more"):
            fill(config, started)
    assert fill(replace(CONFIG, epochs=4), started).warmup_epochs == 4


def test_going_on_and_beginning_again_are_not_both_possible(photos: Path, run: Path):
    with pytest.raises(UsageError, match="give one of them"):
        pretrain(photos, run, CONFIG, resume=True, overwrite=True)


def test_a_config_that_leaves_something_open_means_what_the_run_has(run: Path):
    started = read_record(Run(run)).config
    assert (started.batch_size, started.mean, started.recipe) == (16, (0.485, 0.456, 0.406), "small")
    filled = fill(replace(CONFIG, objective=BYOLConfig(tau_base=0.5)), started)
    assert filled.objective == BYOLConfig(tau_base=0.5, projector_hidden=1024, projection_size=256)
    assert resolve(fill(CONFIG, started), 108).to_json() == Run(run).read_config()["settings"]
    changed = fill(replace(CONFIG, views={"blur": 0.5}), started)
    assert (changed.view_1, changed.learning_rate) == ({}, started.learning_rate)


def test_other_settings_are_named(photos: Path, run: Path):
    for change, message in (
        ({"seed": 1}, r"seed \(was 0, now 1\)"),
        ({"recipe": "glyphs"}, r"recipe \(was small, now glyphs\)"),
        ({"views": {"blur": 0.5}}, r"blur \(was 0.0, now 0.5\)"),
        ({"objective": BYOLConfig(tau_base=0.5)}, r"tau_base \(was 0.9, now 0.5\)"),
        ({"mean": (0.5, 0.5, 0.5)}, r"mean \(was \[0.485, 0.456, 0.406\], now \[0.5, 0.5, 0.5\]\)"),
    ):
        with pytest.raises(UsageError, match=f"cannot be resumed, since it was started otherwise: .*{message}"):
            pretrain(None, run, replace(CONFIG, **change), resume=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.update(backbone=5),
        lambda settings: settings.update(backbone="../../etc/passwd"),
        lambda settings: settings.update(backbone="x" * 5000),
        lambda settings: settings.update(image_size=10**6),
        lambda settings: settings.update(image_size="32"),
        lambda settings: settings.update(seed=-1),
        lambda settings: settings.update(std=[0, 1, 1]),
        lambda settings: settings.update(mean="gray"),
        lambda settings: settings.update(recipe="none"),
        lambda settings: settings.update(views=3),
        lambda settings: settings.update(views=[{}, 5]),
        lambda settings: settings["views"][0].update(blur="much"),
        lambda settings: settings["views"][0].update(geometry=[1]),
        lambda settings: settings.update(objective="byol"),
        lambda settings: settings["objective"].update(tau_base=[1]),
        lambda settings: settings["objective"].update(name="none"),
        lambda settings: settings["objective"].update(name=["byol"]),
        lambda settings: settings.update(plan=7),
        lambda settings: settings["plan"].update(epochs=None),
        lambda settings: settings["plan"].update(epochs=10**9),
        lambda settings: settings["plan"].update(batch_size=-5),
        lambda settings: settings["plan"].update(learning_rate="fast"),
        lambda settings: settings.clear(),
    ],
)
def test_settings_of_a_run_that_are_none_are_one_error(run: Path, change: Callable[[dict[str, Any]], object]):
    change_json(run / "config.json", lambda content: change(content["settings"]))
    with pytest.raises(RunError, match=r"config\.json: ") as error:
        pretrain(None, run, resume=True)
    assert len(str(error.value)) < 2000
    assert "\n" not in str(error.value)


def test_places_of_images_that_are_none_are_one_error(run: Path):
    for folder in (None, "", 5, ["x"], "x" * 5000, "a\0b"):
        change_json(run / "config.json", lambda content, folder=folder: content["images"].update(folder=folder))
        with pytest.raises(RunError, match="give images=IMAGES"):
            pretrain(None, run, resume=True)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"settings": ' * 5000, "5", "null", '{"settings": [1]}'])
def test_a_config_that_is_none_is_one_error(run: Path, content: str):
    (run / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: "):
        pretrain(None, run, resume=True)


def poison(tensors: dict[Any, Any], name: Any) -> None:
    tensors[name] = torch.full_like(tensors[name], float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(epoch=10**9), r"last\.pt: of epoch 1000000000, where config\.json has 2"),
        (lambda state: state.update(epoch=3), r"last\.pt: of epoch 3, where config\.json has 2"),
        (lambda state: poison(state["objective"], "predictor.0.weight"), "predictor.0.weight holds values"),
        (
            lambda state: state["objective"].update({"predictor.0.weight": torch.zeros(2)}),
            r"predictor.0.weight is torch.float32 \[2\], not",
        ),
        (lambda state: state["objective"].update({"conv": torch.zeros(2)}), "not of this run"),
        (lambda state: state["objective"].popitem(), "not of this run"),
        (
            lambda state: state["objective"].update({"backbone.conv1.weight": torch.zeros(32, 3, 3, 3).double()}),
            r"conv1.weight is torch.float64",
        ),
        (lambda state: state["optimizer"].clear(), "not of this run"),
        (lambda state: state["optimizer"].update(state=3), "not of this run"),
        (lambda state: state["optimizer"].update(state={0: 3}), "not of this run"),
        (lambda state: poison(state["optimizer"]["state"][0], "exp_avg"), "exp_avg holds values"),
        (lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), r"exp_avg is \[3\], not"),
        (lambda state: state.update(random=torch.zeros(3)), "not of this run"),
        (lambda state: state["evaluation"].update(embeddings=torch.zeros(3, 4)), "on other images before training"),
        (lambda state: state["evaluation"].update(hits=torch.zeros(3).double()), "on other images before training"),
        (lambda state: state["evaluation"].update(raw=torch.zeros(12) > 0), "on other images before training"),
    ],
)
def test_a_checkpoint_with_other_values_is_one_error(run: Path, change: Callable[[Any], object], message: str):
    state = torch.load(run / "last.pt", weights_only=True)
    change(state)
    torch.save(state, run / "last.pt")
    # A third epoch, so that what was put back is used.
    epochs = 2 if "epoch" in message else 3
    with pytest.raises(RunError, match=message):
        pretrain(None, run, replace(CONFIG, epochs=epochs), resume=True)


def test_what_the_optimizer_was_set_to_is_of_the_settings(run: Path, tmp_path: Path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    state = torch.load(other / "last.pt", weights_only=True)
    state["optimizer"]["param_groups"] = "none"
    torch.save(state, other / "last.pt")
    for each in (run, other):
        pretrain(None, each, replace(CONFIG, epochs=3), resume=True)
    assert weights(other) == weights(run)


def test_lost_metrics_are_one_error(run: Path):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    for left in (None, [], lines[1:], lines[:1], [lines[0], lines[2]], lines[::-1]):
        if left is None:
            (run / "metrics.jsonl").unlink()
        else:
            (run / "metrics.jsonl").write_text("".join(left))
        with pytest.raises(RunError, match=r"metrics\.jsonl: not the figures of epochs 0 to 2; start again"):
            pretrain(None, run, resume=True)
