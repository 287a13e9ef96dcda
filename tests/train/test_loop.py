import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from byol_edge.models.byol import BYOL
from byol_edge.runtime import ImageError, OutputExistsError, Preprocessing, RunError, UsageError, find_images
from byol_edge.runtime.run import EncoderSpec, untrained_encoder
from byol_edge.train import loop
from byol_edge.train import run as run_module
from byol_edge.train.data import Batch
from byol_edge.train.dataset import ImageDataset
from byol_edge.train.loop import choose_device, set_up, train
from byol_edge.train.recipe import resolve
from shapes import CONFIG, Silent


class Stop(Exception):
    """Stands for a kill."""


class Killer(Silent):
    def __init__(self, at_step: int) -> None:
        super().__init__()
        self._at = at_step

    def step(self, done: int, steps: int) -> None:
        if done == self._at:
            raise Stop


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "encoder.safetensors")


def test_training_moves_the_online_backbone_and_the_run_holds_it(finished_run: Path):
    before = untrained_encoder(EncoderSpec("conv4", "standard", 256, Preprocessing(32)), seed=0).state_dict()
    after = weights(finished_run)
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])
    checkpoint = torch.load(finished_run / "last.pt", weights_only=True)["byol"]
    assert torch.equal(checkpoint["backbone.conv1.weight"], after["conv1.weight"])
    assert not torch.equal(checkpoint["target_backbone.conv1.weight"], after["conv1.weight"])


def test_the_same_seed_is_the_same_run(photos: Path, finished_run: Path, tmp_path: Path, watcher: Silent):
    train(photos, tmp_path / "again", CONFIG, watcher)
    assert (tmp_path / "again" / "encoder.safetensors").read_bytes() == (
        finished_run / "encoder.safetensors"
    ).read_bytes()
    train(photos, tmp_path / "other", dataclasses.replace(CONFIG, seed=1), watcher)
    assert (tmp_path / "other" / "encoder.safetensors").read_bytes() != (
        finished_run / "encoder.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("at_step", [3, 6, 8, 12])
def test_a_killed_run_resumes_to_the_same_weights(photos: Path, finished_run: Path, tmp_path: Path, at_step: int):
    out = tmp_path / "run"
    with pytest.raises(Stop):
        train(photos, out, CONFIG, Killer(at_step))
    watcher = Silent()
    train(photos, out, CONFIG, watcher, resume=True)
    assert watcher.first_epoch == (1 if at_step > 6 else 0)
    assert (out / "encoder.safetensors").read_bytes() == (finished_run / "encoder.safetensors").read_bytes()
    assert [each.epoch for each in run_module.read_metrics(out)] == [0, 1, 2]


def test_resume_without_a_run_starts_and_of_a_finished_one_is_done(photos: Path, tmp_path: Path, watcher: Silent):
    train(photos, tmp_path / "run", CONFIG, watcher, resume=True)
    before = (tmp_path / "run" / "encoder.safetensors").read_bytes()
    again = Silent()
    train(photos, tmp_path / "run", CONFIG, again, resume=True)
    assert again.epochs == []
    assert (tmp_path / "run" / "encoder.safetensors").read_bytes() == before


def test_resume_with_other_settings_names_them(photos: Path, run: Path, watcher: Silent):
    with pytest.raises(UsageError, match=r"epochs \(was 2, now 5\)"):
        train(photos, run, dataclasses.replace(CONFIG, epochs=5), watcher, resume=True)
    with pytest.raises(UsageError, match=r"other images \(were 108, now 40\)"):
        train(photos / "disc", run, CONFIG, watcher, resume=True)
    train(photos, run, dataclasses.replace(CONFIG, workers=1), watcher, resume=True)


def test_an_output_that_exists_is_not_touched(photos: Path, run: Path, watcher: Silent):
    before = (run / "encoder.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(photos, run, dataclasses.replace(CONFIG, seed=3), watcher)
    assert (run / "encoder.safetensors").read_bytes() == before


def test_unreadable_images_are_told_once_and_counted(photos: Path, tmp_path: Path, watcher: Silent):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "broken.jpg").write_bytes(b"x")
    train(images, tmp_path / "run", dataclasses.replace(CONFIG, batch_size=109), watcher)
    assert len(watcher.messages) == 1
    assert "broken.jpg" in watcher.messages[0]
    assert run_module.read_metrics(tmp_path / "run")[-1].unreadable == 1


def test_a_folder_without_images_leaves_nothing_behind(photos: Path, tmp_path: Path, watcher: Silent):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images"):
        train(tmp_path / "empty", tmp_path / "run", CONFIG, watcher)
    with pytest.raises(UsageError, match="no backbone"):
        train(photos, tmp_path / "run", dataclasses.replace(CONFIG, backbone="resnot"), watcher)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_and_names_the_step_and_what_is_left(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Silent
):
    add_gradient = loop.add_gradient
    calls = []

    def breaking(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(args)
        loss, projections = add_gradient(*args)
        return loss * (float("nan") if len(calls) > 8 else 1), projections

    monkeypatch.setattr(loop, "add_gradient", breaking)
    with pytest.raises(RunError, match=r"nan at step 9, in epoch 2; .*last\.pt is that of epoch 1.*--learning-rate"):
        train(photos, tmp_path / "run", CONFIG, watcher)
    assert json.loads((tmp_path / "run" / "encoder.json").read_text())["provenance"]["epoch"] == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_which_batch_to_try(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Silent, error: RuntimeError
):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(BYOL, "forward", full)
    with pytest.raises(
        RunError, match=r"out of memory with 16 images of 32 px at a time: --accumulate 2 .*--batch-size 8"
    ):
        train(photos, tmp_path / "run", CONFIG, watcher)


def test_parts_of_a_batch_are_one_optimiser_step(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    take_step = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda *args: (seen.append(args[1:]), take_step(*args)))
    for parts in (1, 4):
        train(photos, tmp_path / str(parts), dataclasses.replace(CONFIG, accumulate=parts), Silent())
    assert len(seen) == 24
    assert seen[:12] == seen[12:]  # the same rates and taus, step by step
    last = [run_module.read_metrics(tmp_path / parts)[-1] for parts in ("1", "4")]
    assert last[0].step == last[1].step == 12


def test_accumulated_gradients_are_those_of_the_batch(photos: Path):
    # Without batch norm's statistics in the way, two halves and the whole are the same mean.
    settings = resolve(dataclasses.replace(CONFIG, backbone="conv4_nobn"), 108)
    training = set_up(ImageDataset(photos, find_images(photos)), Path("unused"), settings, torch.device("cpu"))
    training.byol.eval()
    pixels = torch.randint(0, 256, (2, 16, 32, 32, 3), dtype=torch.uint8)
    gradients = []
    for parts in (1, 2):
        divided = dataclasses.replace(training, settings=dataclasses.replace(settings, accumulate=parts))
        training.optimizer.zero_grad()
        for first, second in zip(pixels[0].chunk(parts), pixels[1].chunk(parts), strict=True):
            loop.add_gradient(divided, Batch(0, first, second, []))
        gradients.append([each.grad.clone() for each in training.byol.parameters() if each.grad is not None])
    for whole, halves in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, halves, rtol=1e-3, atol=1e-6)


def test_a_collapsing_run_stops_and_says_why(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Without a predictor, and a target that follows at once, a constant is the easiest thing to agree on.
    class NoPredictor(BYOL):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.predictor = torch.nn.Identity()

    monkeypatch.setattr(loop, "BYOL", NoPredictor)
    watcher = Silent()
    config = dataclasses.replace(CONFIG, epochs=40, tau_base=0.5, warmup_epochs=1, learning_rate=3e-3)
    with pytest.raises(
        RunError, match=r"stopped after epoch \d+, since the network has collapsed: rank .*--learning-rate"
    ):
        train(photos, tmp_path / "run", config, watcher)
    assert len(watcher.epochs) < 40
    assert (tmp_path / "run" / "curves.png").exists()
    verdict = json.loads((tmp_path / "run" / "encoder.json").read_text())["provenance"]["verdict"]
    assert verdict.startswith("collapsed: rank")


def test_a_kill_between_the_files_of_an_epoch_repeats_it(
    photos: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Whichever file of the last epoch is the last to be written, resuming ends where an uninterrupted run does.
    out = tmp_path / "run"
    for name in ("save_encoder", "append_metrics", "save_checkpoint"):
        original = getattr(run_module, name)
        calls = []

        def killed(*args: Any, original: Any = original, calls: list[Any] = calls) -> None:
            calls.append(args)
            if len(calls) == 2:
                raise Stop
            original(*args)

        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(run_module, name, killed)
            train(photos, out, CONFIG, Silent(), overwrite=True)
        train(photos, out, CONFIG, Silent(), resume=True)
        for file in ("encoder.safetensors", "encoder.json"):
            assert (out / file).read_bytes() == (finished_run / file).read_bytes(), name
        assert [each.epoch for each in run_module.read_metrics(out)] == [0, 1, 2]


def test_resume_brings_back_a_lost_encoder_and_calibration(photos: Path, run: Path, finished_run: Path):
    (run / "encoder.safetensors").unlink()
    (run / "calibration.npz").write_bytes(b"half")
    train(photos, run, CONFIG, Silent(), resume=True)
    for name in ("encoder.safetensors", "calibration.npz"):
        assert (run / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_checkpoint_of_another_run_is_named(photos: Path, run: Path, watcher: Silent):
    torch.save({"byol": {}}, run / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt: not of this run"):
        train(photos, run, CONFIG, watcher, resume=True)


def test_an_epoch_without_readable_images_is_said_to_be_one(photos: Path, tmp_path: Path, watcher: Silent):
    (tmp_path / "images").mkdir()
    shutil.copy(photos / "disc" / "00.png", tmp_path / "images")
    for number in range(15):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match="no batch of epoch 1 had two readable images"):
        train(tmp_path / "images", tmp_path / "run", CONFIG, watcher)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UsageError, match="no GPU"):
        choose_device("cuda")


def test_a_run_can_be_kept_free_of_images(photos: Path, tmp_path: Path):
    train(photos, tmp_path / "run", dataclasses.replace(CONFIG, epochs=1, no_images=True), Silent())
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"encoder.safetensors", "curves.png"} <= names
    assert not {"calibration.npz", "views.png"} & names
