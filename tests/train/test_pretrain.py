"""Whole trainings: what a run ends in, however often it was stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from byol_edge.models.autoencoder import AutoencoderConfig
from byol_edge.models.byol import BYOL, BYOLConfig
from byol_edge.models.checkpoint import read_target
from byol_edge.models.infonce import InfoNCEConfig
from byol_edge.models.objective import Diagnostic, Heads, ObjectiveConfig, Outcome, Views
from byol_edge.models.weights import untrained_encoder
from byol_edge.runtime import ImageError, OutputExistsError, Preprocessing, RunError, UsageError
from byol_edge.runtime.progress import Progress
from byol_edge.runtime.run import EncoderSpec, Metrics, Run
from byol_edge.train import data, loop
from byol_edge.train.devices import choose_device
from byol_edge.train.plan import Plan
from byol_edge.train.pretrain import pretrain
from small_run import CONFIG
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import get_worker_info


class Stop(Exception):
    """Stands for a kill."""


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the training after a step, counted from 1."""

    def report(progress: Progress) -> None:
        if progress.done == step * (CONFIG.batch_size or 0):
            raise Stop

    monkeypatch.setattr(loop, "report_progress", report)


def read_metrics(run: Path) -> list[Metrics]:
    return Run(run).read_metrics()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "encoder.safetensors")


def test_training_moves_the_online_backbone_and_the_run_holds_it(finished_run: Path):
    before = untrained_encoder(EncoderSpec("conv4", "standard", 256, Preprocessing(32)), seed=0).state_dict()
    after = weights(finished_run)
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])
    checkpoint = torch.load(finished_run / "last.pt", weights_only=True)["objective"]
    assert torch.equal(checkpoint["backbone.conv1.weight"], after["conv1.weight"])
    assert not torch.equal(checkpoint["target_backbone.conv1.weight"], after["conv1.weight"])


def test_the_same_seed_is_the_same_run(photos: Path, finished_run: Path, tmp_path: Path):
    pretrain(photos, tmp_path / "again", CONFIG)
    assert (tmp_path / "again" / "encoder.safetensors").read_bytes() == (
        finished_run / "encoder.safetensors"
    ).read_bytes()
    pretrain(photos, tmp_path / "other", dataclasses.replace(CONFIG, seed=1))
    assert (tmp_path / "other" / "encoder.safetensors").read_bytes() != (
        finished_run / "encoder.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("at_step", [3, 6, 8, 12])
def test_a_killed_run_resumes_to_the_same_weights(
    photos: Path,
    finished_run: Path,
    tmp_path: Path,
    at_step: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(at_step, patch)
        pretrain(photos, out, CONFIG)
    with caplog.at_level(logging.INFO):
        pretrain(photos, out, CONFIG, resume=True)
    assert ("going on after epoch 1 of 2" in caplog.messages) == (at_step > 6)
    assert (out / "encoder.safetensors").read_bytes() == (finished_run / "encoder.safetensors").read_bytes()
    assert [each.epoch for each in read_metrics(out)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("augment", "objective"),
    [("device", BYOLConfig()), ("workers", InfoNCEConfig()), ("workers", AutoencoderConfig())],
    ids=["views made on the device", "infonce", "autoencoder"],
)
def test_a_killed_run_of_another_kind_resumes_to_the_same_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: str, objective: ObjectiveConfig
):
    config = dataclasses.replace(CONFIG, augment=augment, objective=objective)
    pretrain(photos, tmp_path / "whole", config)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(8, patch)
        pretrain(photos, tmp_path / "run", config)
    pretrain(None, tmp_path / "run", resume=True)
    one, other = (tmp_path / name / "encoder.safetensors" for name in ("whole", "run"))
    assert one.read_bytes() == other.read_bytes()
    assert read_metrics(tmp_path / "run")[-1].diagnostics.keys() >= objective.diagnostics.keys()


def test_stages_go_on_from_each_other(photos: Path, tmp_path: Path):
    before, names = None, []
    for objective in (AutoencoderConfig(), InfoNCEConfig(), BYOLConfig()):
        out = tmp_path / objective.name
        config = dataclasses.replace(
            CONFIG, epochs=1, init=before, objective=objective, backbone_rate=1.0, frozen_norms=False
        )
        pretrain(photos, out, config)
        if before is not None:
            start = torch.load(out / "last.pt", weights_only=True)["start"]
            assert all(torch.equal(start[name], tensor) for name, tensor in weights(Path(before)).items())
        provenance = Run(out).read_encoder().provenance
        names.append((provenance.objective, provenance.init))
        before = str(out)
    assert names == [
        ("autoencoder", None),
        ("infonce", str(tmp_path / "autoencoder")),
        ("byol", str(tmp_path / "infonce")),
    ]


@pytest.mark.parametrize(
    "how", [{"accumulate": 2}, {"augment": "device"}, {"precision": "bf16"}, {"deterministic": True}], ids=str
)
def test_a_run_goes_on_though_it_is_computed_otherwise(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(8, patch)
        pretrain(photos, tmp_path / "run", CONFIG)
    pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, **how), resume=True)
    settings = Run(tmp_path / "run").read_config()["settings"]
    assert how.items() <= {**settings, **settings["plan"]}.items()
    assert [each.epoch for each in read_metrics(tmp_path / "run")] == [0, 1, 2]


def test_a_cache_changes_nothing_but_the_speed(photos: Path, finished_run: Path, tmp_path: Path):
    for name in ("first", "second"):
        pretrain(photos, tmp_path / name, CONFIG, cache=tmp_path / "cache")
        one, other = (path / "encoder.safetensors" for path in (tmp_path / name, finished_run))
        assert one.read_bytes() == other.read_bytes()


def test_resume_without_a_run_starts_and_of_a_finished_one_is_done(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    pretrain(photos, tmp_path / "run", CONFIG, resume=True)
    before = (tmp_path / "run" / "encoder.safetensors").read_bytes()
    with caplog.at_level(logging.INFO):
        pretrain(photos, tmp_path / "run", CONFIG, resume=True)
    assert caplog.messages[-1] == "finished already"
    assert (tmp_path / "run" / "encoder.safetensors").read_bytes() == before


def test_resume_with_other_workers_goes_on_and_with_other_images_does_not(photos: Path, run: Path):
    with pytest.raises(UsageError, match=r"other images to measure kNN on \(were 12, now 0\)"):
        pretrain(photos / "disc", run, CONFIG, resume=True)
    pretrain(photos, run, dataclasses.replace(CONFIG, workers=1), resume=True)


def test_an_output_that_exists_is_not_touched(photos: Path, run: Path):
    before = (run / "encoder.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        pretrain(photos, run, dataclasses.replace(CONFIG, seed=3))
    assert (run / "encoder.safetensors").read_bytes() == before


def test_unreadable_images_are_named_and_counted(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "broken.jpg").write_bytes(b"x")
    pretrain(images, tmp_path / "run", dataclasses.replace(CONFIG, batch_size=109))
    named = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message for message in named if "broken.jpg" in message] == named[:1]
    assert named[1:] == ["left out: 1 unreadable image"]
    assert read_metrics(tmp_path / "run")[-1].unreadable == 1


def test_a_folder_without_images_leaves_nothing_behind(photos: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images"):
        pretrain(tmp_path / "empty", tmp_path / "run", CONFIG)
    with pytest.raises(UsageError, match="no backbone"):
        pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, backbone="resnot"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_and_names_the_step_and_what_is_left(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    forward = BYOL.forward
    calls = []

    def breaking(self: BYOL, views: Views) -> Outcome:
        calls.append(views)
        outcome = forward(self, views)
        return Outcome(outcome.loss * (float("nan") if len(calls) > 8 else 1), outcome.diagnostics)

    monkeypatch.setattr(BYOL, "forward", breaking)
    with pytest.raises(RunError, match=r"nan at step 9, in epoch 2; .*last\.pt is that of epoch 1.*learning_rate="):
        pretrain(photos, tmp_path / "run", CONFIG)
    assert Run(tmp_path / "run").read_encoder().provenance.epoch == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_which_batch_to_try(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(BYOL, "forward", full)
    ways = r"resume=True with accumulate=2 .*, or resume=True with precision=bf16, or start again with batch_size=8"
    with pytest.raises(RunError, match=f"out of memory with 16 images of 32 px at a time: {ways}"):
        pretrain(photos, tmp_path / "run", CONFIG)


def test_parts_of_a_batch_are_one_optimizer_step(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, float]] = []
    rate, after_step = Plan.rate, BYOL.after_step
    monkeypatch.setattr(Plan, "rate", lambda self, step: (seen.append(("rate", rate(self, step))), rate(self, step))[1])

    def after(self: BYOL, progress: float) -> dict[str, float]:
        seen.append(("progress", progress))
        return after_step(self, progress)

    monkeypatch.setattr(BYOL, "after_step", after)
    for parts in (1, 4):
        pretrain(photos, tmp_path / str(parts), dataclasses.replace(CONFIG, accumulate=parts))
    half = len(seen) // 2
    assert sum(what == "progress" for what, _ in seen) == 24
    assert seen[:half] == seen[half:]  # the same rates and taus, step by step
    last = [read_metrics(tmp_path / parts)[-1] for parts in ("1", "4")]
    assert last[0].step == last[1].step == 12


def test_a_collapsing_run_stops_and_says_why(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Without a predictor, and a target that follows at once, a constant is the easiest thing to agree on.
    build = BYOLConfig.build

    def without_predictor(self: BYOLConfig, *arguments: Any) -> BYOL:
        byol = build(self, *arguments)
        byol.predictor = torch.nn.Identity()  # type: ignore[assignment]
        return byol

    monkeypatch.setattr(BYOLConfig, "build", without_predictor)
    config = dataclasses.replace(
        CONFIG, epochs=40, warmup_epochs=1, learning_rate=3e-3, objective=BYOLConfig(tau_base=0.5)
    )
    with pytest.raises(
        RunError, match=r"stopped after epoch \d+, since the network has collapsed: rank .*learning_rate="
    ):
        pretrain(photos, tmp_path / "run", config)
    assert len(read_metrics(tmp_path / "run")) < 41
    assert (tmp_path / "run" / "curves.png").exists()
    verdict = Run(tmp_path / "run").read_encoder().provenance.verdict
    assert verdict is not None
    assert verdict.startswith("collapsed: rank")


def test_a_kill_between_the_files_of_an_epoch_repeats_it(
    photos: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Whichever file of the last epoch is the last to be written, resuming ends where an uninterrupted run does.
    out = tmp_path / "run"
    for name in ("save_encoder", "append_metrics", "save_checkpoint"):
        original = getattr(Run, name)
        calls = []

        def killed(*args: Any, original: Any = original, calls: list[Any] = calls) -> Any:
            calls.append(args)
            if len(calls) == 2:
                raise Stop
            return original(*args)

        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(Run, name, killed)
            pretrain(photos, out, CONFIG, overwrite=True)
        pretrain(photos, out, CONFIG, resume=True)
        file = "encoder.safetensors"
        assert (out / file).read_bytes() == (finished_run / file).read_bytes(), name
        assert [each.epoch for each in read_metrics(out)] == [0, 1, 2]


def test_resume_brings_back_a_lost_encoder_and_calibration(photos: Path, run: Path, finished_run: Path):
    (run / "encoder.safetensors").unlink()
    (run / "calibration.npz").write_bytes(b"half")
    pretrain(photos, run, CONFIG, resume=True)
    for name in ("encoder.safetensors", "calibration.npz"):
        assert (run / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_checkpoint_of_another_run_is_named(photos: Path, run: Path):
    torch.save({"objective": {}}, run / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt: not of this run"):
        pretrain(photos, run, CONFIG, resume=True)


def test_an_epoch_without_readable_images_is_said_to_be_one(photos: Path, tmp_path: Path):
    (tmp_path / "images").mkdir()
    shutil.copy(photos / "disc" / "00.png", tmp_path / "images")
    for number in range(15):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match="no batch of epoch 1 had two readable images"):
        pretrain(tmp_path / "images", tmp_path / "run", CONFIG)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UsageError, match="no GPU"):
        choose_device("cuda")


def test_a_run_can_be_kept_free_of_images(photos: Path, tmp_path: Path):
    pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, epochs=1, no_images=True))
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"encoder.safetensors", "curves.png"} <= names
    assert not {"calibration.npz", "views.png"} & names


def test_accumulated_gradients_are_those_of_the_batch():
    # Batch norm in its inference mode has no statistics of a batch, so that two halves and the whole are the same mean.
    torch.manual_seed(0)
    byol = BYOLConfig(0.9, 32, 16).build(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8)), 8, 2).eval()
    views = torch.randn(2, 16, 3, 2, 2)
    gradients = []
    for parts in (1, 2):
        byol.zero_grad()
        for first, second in zip(views[0].chunk(parts), views[1].chunk(parts), strict=True):
            (byol(Views(first, second)).loss / parts).backward()
        gradients.append([each.grad.clone() for each in byol.parameters() if each.grad is not None])
    for whole, halves in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, halves, rtol=1e-3, atol=1e-6)


def test_another_objective_trains_as_byol_does(photos: Path, tmp_path: Path):
    """The loop, the metrics, the verdict, the plots and the checkpoint know what an objective is, and none by name."""

    class Spread(torch.nn.Module):
        def __init__(self, backbone: torch.nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        head = None

        def forward(self, views: Views) -> Outcome:
            apart = (self.backbone(views.first) - self.backbone(views.second)).square().mean()
            return Outcome(apart, {"apart": apart.detach()})

        def after_step(self, progress: float) -> dict[str, float]:
            return {"progress": progress}

    @dataclasses.dataclass(frozen=True)
    class SpreadConfig:
        name: ClassVar[str] = "spread"
        needs_teacher: ClassVar[bool] = False
        least_batch: ClassVar[int] = 2
        rate: ClassVar[float] = 1.0
        epochs: ClassVar[int] = 10
        margin: ClassVar[float] = 0.0
        recipe: ClassVar[str | None] = None
        loss_title: ClassVar[str] = "distance"
        diagnostics: ClassVar[dict[str, Diagnostic]] = {"apart": Diagnostic("distance of the views")}
        strength: float = 1.0

        def complete(self, heads: Heads, steps: int) -> SpreadConfig:
            return self

        def build(self, backbone: torch.nn.Module, *sizes: object) -> Spread:
            return Spread(backbone)

    out = tmp_path / "run"
    verdict = pretrain(photos, out, dataclasses.replace(CONFIG, objective=SpreadConfig()))
    assert verdict.kind in ("healthy", "doubtful", "collapsed")
    assert Run(out).read_encoder().provenance.objective == "spread"
    assert Run(out).read_config()["settings"]["objective"] == {"name": "spread", "strength": 1.0}
    assert read_metrics(out)[-1].diagnostics.keys() == {"apart", "progress"}
    with pytest.raises(RunError, match="its objective has no target_backbone"):
        read_target(Run(out))


def test_a_killed_data_worker_is_one_line_that_says_what_to_do(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read_picture = data.read_picture

    def killed(*arguments: Any) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_picture(*arguments)

    monkeypatch.setattr(data, "read_picture", killed)
    with pytest.raises(RunError, match=r"was killed, out of memory perhaps; go on with resume=True and workers=1"):
        pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, workers=2))


def test_tensorboard_shows_each_epoch_once_after_a_kill(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(11, patch)
        pretrain(photos, out, CONFIG)
    pretrain(photos, out, CONFIG, resume=True)
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    history = read_metrics(out)
    for name in ("loss", "rank", "tau", "projection_std"):
        assert [event.step for event in board.Scalars(name)] == [1, 2], name
    assert [event.value for event in board.Scalars("loss")] == pytest.approx([each.loss for each in history[1:]])


def test_one_process_at_a_time_trains_a_run(photos: Path, run: Path):
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    with Run(run).locked():
        for resume in (True, False):
            with pytest.raises(RunError, match="another `byol-edge train` is at work on this run"):
                pretrain(photos, run, CONFIG, resume=resume, overwrite=not resume)
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_a_run_of_a_version_that_knew_less_or_more_goes_on(photos: Path, finished_run: Path, run: Path):
    config = json.loads((run / "config.json").read_text())
    del config["settings"]["no_images"], config["versions"], config["format_version"]
    config["settings"]["of a later version"] = config["of a later version"] = 1
    (run / "config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["knn_gain"]
        line["of a later version"] = 1
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pretrain(photos, run, CONFIG, resume=True)
    assert weights(run).keys() == weights(finished_run).keys()
    config["format_version"] = 99
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="run format 99 is newer than this byol-edge reads"):
        pretrain(photos, run, CONFIG, resume=True)
