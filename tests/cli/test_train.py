"""`byol-edge train` as typed: normalization, resuming by the folder alone, more epochs, labels elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from byol_edge.cli.main import _as_flag
from byol_edge.cli.train import train
from byol_edge.models.backbones import build_backbone
from byol_edge.runtime.run import Run
from commands import call, fails

SMALL = ("--backbone", "conv4", "--image-size", 32, "--epochs", 1, "--workers", 0)


def settings(run: Path) -> dict[str, object]:
    return Run(run).read_config()["settings"]


def test_a_normalization_that_is_a_guess_is_said_to_be_one(photos: Path, tmp_path: Path, finished_run: Path):
    checkpoint, out = tmp_path / "c.pt", tmp_path / "run"
    torch.save(build_backbone("conv4", 32).state_dict(), checkpoint)
    command = ("train", photos, "--out", out, *SMALL, "--overwrite")
    guess = "assumed: {} of its images: ImageNet's"
    for given, said in (
        (("--init", checkpoint), "mean and std"),
        (("--init", checkpoint, "--mean", 0.5), "std"),
        (("--init", checkpoint, "--mean", 0.5, "--std", "0.5,0.4,1"), None),
        (("--init", finished_run), None),
        ((), None),
    ):
        result = call(*command, *given)
        assert result.exit_code == 0, result.output
        assert ("assumed:" in result.stderr) == (said is not None)
        assert said is None or guess.format(said) in " ".join(result.stderr.split())
        if "--std" in given:
            assert "normalization: mean 0.5 0.5 0.5, std 0.5 0.4 1" in result.stderr
            assert (settings(out)["mean"], settings(out)["std"]) == ([0.5] * 3, [0.5, 0.4, 1.0])
            assert Run(out).read_encoder().spec.preprocessing.std == (0.5, 0.4, 1.0)


def test_a_normalization_out_of_range_is_refused(photos: Path, tmp_path: Path):
    for given, message in (
        (("--mean", "x"), "'x' is not a number, or three"),
        (("--mean", ""), "'' is not a number, or three"),
        (("--mean", "0.5,0.5"), "--mean 0.5,0.5: has to be three numbers, of red, green and blue"),
        (("--mean", "nan"), "has to be three numbers"),
        (("--std", "0"), "--std 0.0,0.0,0.0: has to be three numbers above 0"),
        (("--std", "inf"), "has to be three numbers above 0"),
    ):
        assert message in fails(2, "train", photos, "--out", tmp_path / "run", *SMALL, *given)


def test_a_run_goes_on_by_its_folder_alone_and_for_more_epochs(photos: Path, tmp_path: Path):
    out, config = tmp_path / "run", tmp_path / "c.toml"
    config.write_text("seed = 3\n[views]\nblur = 0.25\n[objective]\ntau_base = 0.95\n")
    assert call("train", photos, "--out", out, *SMALL, "--config", config).exit_code == 0
    before = settings(out)
    result = call("train", "--resume", "--out", out)
    assert result.exit_code == 0, result.output
    assert "finished already" in result.stderr
    result = call("train", "--resume", "--out", out, "--epochs", 2)
    assert result.exit_code == 0, result.output
    assert "a longer plan: 2 epochs instead of 1; the learning rate follows the longer schedule" in result.stderr
    assert "epoch 2: loss" in result.stderr
    plan = before["plan"]
    assert isinstance(plan, dict)
    assert settings(out) == {**before, "plan": {**plan, "epochs": 2}}
    # The same command as at first, with what is given on top in agreement or not.
    assert call("train", photos, "--out", out, *SMALL[:-4], "--config", config, "--resume").exit_code == 0
    assert "seed (was 3, now 4)" in fails(2, "train", "--out", out, "--resume", "--seed", 4)
    assert "optimizer (was adamw, now sgd)" in fails(2, "train", "--out", out, "--resume", "--optimizer", "sgd")
    assert "recipe (was small, now glyphs)" in fails(2, "train", "--out", out, "--resume", "--recipe", "glyphs")
    assert "--epochs 1: the run has finished 2" in fails(2, "train", "--out", out, "--resume", "--epochs", 1)
    config.write_text("[views]\nblur = 0.5\n")
    assert "blur (was 0.25, now 0.5)" in fails(2, "train", "--out", out, "--resume", "--config", config)


def test_a_run_whose_images_moved_says_how_to_name_them(photos: Path, tmp_path: Path):
    images, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(photos, images)
    assert call("train", images, "--out", out, *SMALL).exit_code == 0
    images.rename(tmp_path / "moved")
    assert "if it has moved, give IMAGES" in fails(1, "train", "--resume", "--out", out)
    assert call("train", tmp_path / "moved", "--resume", "--out", out).exit_code == 0
    assert call("train", "--resume", "--out", out).exit_code == 0


def test_without_images_or_a_run_nothing_starts(tmp_path: Path):
    run = tmp_path / "run"
    assert fails(2, "train", "--out", run) == "byol-edge: give IMAGES to start a run"
    assert f"no run to go on with, --out {run}; give IMAGES to start a run" in fails(
        2, "train", "--out", run, "--resume"
    )


def test_labels_beside_unlabeled_images_measure_knn(photos: Path, tmp_path: Path):
    unlabeled = shutil.copytree(photos / "disc", tmp_path / "unlabeled")
    result = call("train", unlabeled, "--out", tmp_path / "run", *SMALL, "--eval", photos)
    assert result.exit_code == 0, result.output
    assert "others, of 3 classes, measure kNN, each by the rest of them" in result.stderr
    assert "kNN" in result.stdout


def test_no_place_of_images_gets_into_a_bundle(photos: Path, tmp_path: Path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    secret = shutil.copytree(photos, tmp_path / "secret")
    (tmp_path / "l.csv").write_text("image,label\n" + "".join(f"disc/{n:02}.png,{n % 2}\n" for n in range(40)))
    assert call("train", secret, "--out", run, *SMALL, "--labels", tmp_path / "l.csv").exit_code == 0
    assert str(secret) in (run / "config.json").read_text()
    assert call("export", run, "--out", bundle).exit_code == 0
    for file in bundle.rglob("*"):
        assert file.is_dir() or (b"secret" not in file.read_bytes() and b"l.csv" not in file.read_bytes()), file


@pytest.mark.parametrize("kind", ["missing", "unreadable"])
def test_a_file_that_cannot_be_read_exits_1_in_every_command(
    photos: Path, finished_run: Path, finished_bundle: Path, tmp_path: Path, kind: str
):
    gone, vectors = tmp_path / "gone", tmp_path / "v.npz"
    if kind == "unreadable":
        gone.write_bytes(b"\xff" * 100)
    train = ("train", photos, "--out", tmp_path / "run", *SMALL)
    export = ("export", finished_run, "--out", tmp_path / "bundle")
    for command in (
        ("train", gone, "--out", tmp_path / "run", *SMALL),
        (*train, "--init", gone),
        (*train, "--labels", gone),
        (*train, "--eval", gone),
        (*train, "--config", gone),
        ("export", gone, "--out", tmp_path / "bundle"),
        (*export, "--calibration", gone),
        ("embed", gone, photos, "-o", vectors),
        ("embed", finished_bundle, gone, "-o", vectors, "--strict"),
        ("self-test", gone),
        ("inspect", gone),
        ("bench", gone),
        ("validate", gone, "--data", photos),
        ("validate", finished_bundle, "--data", gone),
        ("validate", finished_bundle, "--data", photos, "--labels", gone),
        ("validate", finished_bundle, "--data", photos, "--against", gone),
        ("validate", "--vectors", gone, gone),
    ):
        fails(1, *command)
    for left in (tmp_path / "run", tmp_path / "bundle", vectors):
        assert not left.exists()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"settings": {"backbone": 5}}', '{"settings": 3}'])
def test_a_damaged_config_is_one_line(run: Path, content: str):
    (run / "config.json").write_text(content)
    assert "config.json: " in fails(1, "train", "--resume", "--out", run)


def test_a_checkpoint_of_an_epoch_that_cannot_be_is_one_line(run: Path):
    state = torch.load(run / "last.pt", weights_only=True)
    for epoch in (10**9, -1, "two"):
        torch.save({**state, "epoch": epoch}, run / "last.pt")
        assert "last.pt: " in fails(1, "train", "--resume", "--out", run)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2


def test_a_flag_to_switch_off_is_spelled_as_it_is_typed():
    assert [_as_flag(train, "compile", value) for value in (True, False)] == ["--compile", "--no-compile"]
